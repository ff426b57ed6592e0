package interpose

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// handshaking is a connection without a listener: the client's far end, the VMM's far
// end, and what becomes of it.
func handshaking(t testing.TB) (client, server *net.UnixConn, done chan *connection) {
	t.Helper()
	c := &connection{step: func(string) {}}
	client, c.client = pair(t)
	server, c.server = pair(t)
	done = make(chan *connection, 1)
	go func() {
		if _, err := c.handshake(1024); err != nil {
			t.Error(err)
		}
		if c.current() == relays { // as a relay begins
			_, _ = c.client.Write(c.fromServer[:c.line])
			c.fromServer, c.line = c.fromServer[c.line:], 0
		}
		done <- c
	}()
	return client, server, done
}

func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
		_ = conn.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { conn.Close() })
	}
	return ends[0], ends[1]
}

func send(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Error(err)
	}
}

func receive(t testing.TB, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, not %q", got[:n], err, want)
	}
}

// TestHandshake: what is said until both lines have passed, step by step: "> " by
// the client, "< " by the VMM; each part arrives before the next is said.
func TestHandshake(t *testing.T) {
	for name, c := range map[string]struct {
		said  []string
		want  verdict
		asked bool
	}{
		"Go":                      {[]string{"> CONNECT 1024\n", "< OK 1073741824\n"}, relays, true},
		"runtime-rs":              {[]string{"> connect 1024\n", "< OK 7\n"}, relays, true},
		"in parts":                {[]string{"> C", "> ONNECT ", "> 1024", "> \n", "< O", "< K", "<  ", "< 1", "< 2", "< \n"}, relays, true},
		"another port":            {[]string{"> CONNECT 1025\n", "< OK 1\n", "> input", "< log"}, passes, false},
		"a port that begins so":   {[]string{"> CONNECT 10240\n", "< OK 1\n"}, passes, false},
		"a port that is begun so": {[]string{"> CONNECT 102\n", "< OK 1\n"}, passes, false},
		"mixed case":              {[]string{"> Connect 1024\n", "< OK 1\n"}, passes, false},
		"no line":                 {[]string{"> \x00\x00\x00\x10", "< \x00"}, passes, false},
		"passed descriptors":      {[]string{"> passfd\n", "> 1024 keep", "< OK 1\n"}, passes, false},
		"a long line":             {[]string{"> CONNECT 1024 and so on", "< no"}, passes, false},
		"a refusal":               {[]string{"> CONNECT 1024\n", "< ERROR\n"}, passes, true},
		"no number":               {[]string{"> CONNECT 1024\n", "< OK \n"}, passes, true},
		"a long number":           {[]string{"> CONNECT 1024\n", "< OK 42949672950\n"}, passes, true},
		"no newline":              {[]string{"> CONNECT 1024\n", "< OK 1\r", "< \n"}, passes, true},
		"the VMM is first":        {[]string{"< hello", "> CONNECT 1024\n", "< OK 1\n"}, passes, false},
		"the VMM interrupts":      {[]string{"> CONNECT", "< what?", ">  1024\n", "< OK 1\n"}, passes, false},
	} {
		t.Run(name, func(t *testing.T) {
			client, server, done := handshaking(t)
			for _, s := range c.said {
				if s[0] == '>' {
					send(t, client, s[2:])
					receive(t, server, s[2:])
				} else {
					send(t, server, s[2:])
					receive(t, client, s[2:])
				}
			}
			if c.want == passes {
				send(t, server, "more")
				receive(t, client, "more")
				send(t, client, "more")
				receive(t, server, "more")
				client.Close()
			}
			conn := <-done
			if got := conn.current(); got != c.want || conn.asked != c.asked {
				t.Errorf("verdict %d, asked %t", got, conn.asked)
			}
			if c.want == relays && len(conn.fromClient)+len(conn.fromServer) > 0 {
				t.Errorf("held %q and %q", conn.fromClient, conn.fromServer)
			}
		})
	}
}

// TestWhoIsFirst: a client that asks after the VMM has spoken has not asked, however late
// its direction notices that.
func TestWhoIsFirst(t *testing.T) {
	first := &connection{decided: make(chan struct{})}
	if !first.ask() || !first.wasAsked() || first.current() != open {
		t.Error("what the VMM says to a client that has asked is no answer")
	}
	late := &connection{decided: make(chan struct{})}
	if late.wasAsked() || late.ask() || late.asked || late.current() != passes {
		t.Error("what the VMM has said before is an answer")
	}
}

// TestAhead: what either end says without waiting is for the relay.
func TestAhead(t *testing.T) {
	client, server, done := handshaking(t)
	send(t, client, "CONNECT 1024\nfirst ")
	receive(t, server, "CONNECT 1024\n")
	send(t, client, "second")
	time.Sleep(time.Millisecond)
	send(t, server, "OK 5\nwelcome")
	receive(t, client, "OK 5\n")
	c := <-done
	if c.current() != relays {
		t.Fatal("passes")
	}
	go copyRelay(c.ahead())
	receive(t, server, "first second")
	receive(t, client, "welcome")
	send(t, client, "third")
	receive(t, server, "third")
	client.Close()
	server.Close()
}

// TestMuchAhead: a client that says more than is held is not held up for good, and
// nothing is lost whatever the VMM then says.
func TestMuchAhead(t *testing.T) {
	much := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	for name, answer := range map[string]string{"agreed": "OK 5\n", "refused": "NO\n"} {
		t.Run(name, func(t *testing.T) {
			client, server, done := handshaking(t)
			go func() {
				_, _ = io.WriteString(client, "CONNECT 1024\n")
				_, _ = client.Write(much)
				_ = client.CloseWrite()
			}()
			receive(t, server, "CONNECT 1024\n")
			time.Sleep(10 * time.Millisecond) // for as much as is held
			send(t, server, answer)
			receive(t, client, answer)
			if answer == "OK 5\n" {
				c := <-done
				if n := len(c.fromClient); n > maxHeld+bufferSize {
					t.Errorf("%d bytes were held", n)
				}
				go copyRelay(c.ahead())
			}
			if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, much) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			server.Close()
			client.Close()
		})
	}
}

// TestEndsAtEachStep: the end of either side at any step of the handshake reaches
// the other, and leaves nothing behind.
func TestEndsAtEachStep(t *testing.T) {
	steps := []string{"> CONN", "> ECT 1024\n", "> ahead", "< O", "< K 12"}
	for n := range len(steps) + 1 {
		for _, end := range []string{"client", "VMM", "client's half", "VMM's half"} {
			t.Run(fmt.Sprint(n, " ", end), func(t *testing.T) {
				client, server, done := handshaking(t)
				for i, s := range steps[:n] {
					if s[0] == '>' {
						send(t, client, s[2:])
						if i < 2 {
							receive(t, server, s[2:])
						}
					} else {
						send(t, server, s[2:])
						receive(t, client, s[2:])
					}
				}
				var other *net.UnixConn
				switch end {
				case "client":
					client.Close()
					other = server
				case "VMM":
					server.Close()
					other = client
				case "client's half":
					_ = client.CloseWrite()
					other = server
				case "VMM's half":
					_ = server.CloseWrite()
					other = client
				}
				rest, err := io.ReadAll(other)
				want := ""
				if other == server && n > 2 {
					want = "ahead"
				}
				if err != nil || string(rest) != want {
					t.Errorf("the other reads %q, %v", rest, err)
				}
				// The other direction is open if only half was closed.
				switch end {
				case "client's half":
					send(t, server, "answer")
					receive(t, client, "answer")
					server.Close()
				case "VMM's half":
					send(t, client, "request")
					if n > 2 {
						receive(t, server, "ahead")
					}
					receive(t, server, "request")
					client.Close()
				}
				if c := <-done; c.current() != passes {
					t.Error("it would be relayed")
				}
			})
		}
	}
}

// TestDescriptorsInHandshake: descriptors make a connection pass, wherever they
// come.
func TestDescriptorsInHandshake(t *testing.T) {
	for name, c := range map[string]struct{ before, with string }{
		"in the line":    {"CONN", "ECT 1024\n"},
		"with the line":  {"", "CONNECT 1024\n"},
		"after the line": {"CONNECT 1024\n", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			client, server, done := handshaking(t)
			send(t, client, c.before)
			receive(t, server, c.before)
			fds, ids := files(t, 2)
			if _, _, err := client.WriteMsgUnix([]byte(c.with), unix.UnixRights(fds...), nil); err != nil {
				t.Fatal(err)
			}
			host.CloseAll(fds)
			if text, got := take(t, server, 100); text != c.with || fmt.Sprint(got) != fmt.Sprint(ids) {
				t.Errorf("%q with %d descriptors", text, len(got))
			}
			send(t, server, "OK 1\n")
			receive(t, client, "OK 1\n")
			client.Close()
			if c := <-done; c.current() != passes {
				t.Error("it would be relayed")
			}
		})
	}
}

// TestAttempts: what a runtime tries until the agent listens leaves nothing behind.
func TestAttempts(t *testing.T) {
	pattern, v := vmmAt(t)
	v.agent.Store(false)
	var log lines
	i, _ := interposer(t, pattern, Options{Warn: log.warn})
	taken(t, v.path)
	attempt := func() {
		conn := dial(t, v.path)
		if _, err := io.WriteString(conn, "CONNECT 1024\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
			t.Fatalf("%q, %v", got, err)
		}
		conn.Close()
	}
	attempt()
	const attempts = 262 // seen of Kata's Go runtime
	eventually(t, "the first has ended", func() bool { return i.Counts().Attempts == 1 })
	fds, goroutines := descriptors(t), runtime.NumGoroutine()
	for range attempts {
		attempt()
	}
	eventually(t, "all are counted", func() bool { return i.Counts() == Counts{Attempts: attempts + 1} })
	eventually(t, "all are gone", func() bool { return descriptors(t) <= fds && runtime.NumGoroutine() <= goroutines })
	if log.String() != "" {
		t.Errorf("warnings: %s", log.String())
	}
	v.agent.Store(true)
	mustConverse(t, v.path)
	eventually(t, "it is relayed", func() bool { return i.Counts().Relayed == 1 })
}

// FuzzHandshake: whatever either side says, in whatever pieces, the other reads
// just that, and only what follows a whole handshake is relayed.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte("CONNECT 1024\nabc"), []byte("OK 12\nxyz"), []byte{3, 200, 1, 9})
	f.Add([]byte("connect 1024\n"), []byte("OK 12\n"), []byte{0})
	f.Add([]byte("CONNECT 1024\n"), []byte(""), []byte{5})
	f.Add([]byte("CONNECT 1025\n"), []byte("OK 4294967296\n"), []byte{255, 1})
	f.Add([]byte("passfd\n"), []byte("OK\n"), []byte{1, 129})
	f.Fuzz(func(t *testing.T, fromClient, fromServer, cuts []byte) {
		client, server, done := handshaking(t)
		ended := make(chan struct{})
		var verdictOf *connection
		go func() {
			defer close(ended)
			if verdictOf = <-done; verdictOf.current() == relays {
				copyRelay(verdictOf.ahead())
			} else {
				verdictOf.client.Close()
				verdictOf.server.Close()
			}
		}()
		heard := make(chan [2]string)
		go func() {
			at := make(chan string)
			go func() {
				b, _ := io.ReadAll(server)
				at <- string(b)
			}()
			b, _ := io.ReadAll(client)
			heard <- [2]string{<-at, string(b)}
		}()
		// The cuts say how much is written at a time, and by whom.
		c, s := fromClient, fromServer
		for _, cut := range cuts {
			n := int(cut & 0x7f)
			if cut&0x80 == 0 {
				n = min(n, len(c))
				_, _ = client.Write(c[:n])
				c = c[n:]
			} else {
				n = min(n, len(s))
				_, _ = server.Write(s[:n])
				s = s[n:]
			}
			runtime.Gosched()
		}
		_, _ = client.Write(c)
		_, _ = server.Write(s)
		_ = client.CloseWrite()
		_ = server.CloseWrite()
		got := <-heard
		<-ended
		if got[0] != string(fromClient) || got[1] != string(fromServer) {
			t.Errorf("VMM heard %q of %q, client %q of %q", got[0], fromClient, got[1], fromServer)
		}
		line, _, _ := bytes.Cut(fromClient, []byte("\n"))
		if verdictOf.current() == relays && string(line) != "CONNECT 1024" && string(line) != "connect 1024" {
			t.Errorf("%q is relayed", line)
		}
	})
}
