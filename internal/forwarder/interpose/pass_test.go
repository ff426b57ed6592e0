package interpose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// passing makes a connection to a VMM that passes an interposer; the client sends first.
// The VMM's end comes after that line.
func passing(t testing.TB, first string) (client, server *net.UnixConn) {
	t.Helper()
	pattern, v := vmmAt(t)
	ends := make(chan *net.UnixConn)
	over := make(chan struct{})
	v.talk = func(conn *net.UnixConn, line string) {
		ends <- conn
		<-over
	}
	interposer(t, pattern, Options{})
	taken(t, v.path)
	client = dial(t, v.path)
	if _, err := io.WriteString(client, first); err != nil {
		t.Fatal(err)
	}
	server = <-ends
	t.Cleanup(func() { close(over) })
	t.Cleanup(func() { client.Close() })
	return client, server
}

// files returns as many descriptors of files that can be told apart.
func files(t testing.TB, n int) (all []int, ids []uint64) {
	t.Helper()
	for range n {
		fd, err := unix.MemfdCreate("passed", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fd)
		ids = append(ids, inode(t, fd))
	}
	return all, ids
}

func inode(t testing.TB, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// take reads once, and closes the descriptors, whose inodes it returns.
func take(t testing.TB, conn *net.UnixConn, size int) (string, []uint64) {
	t.Helper()
	data, oob := make([]byte, size), make([]byte, 4096)
	n, oobn, flags, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		t.Fatal(err)
	}
	if flags&unix.MSG_CTRUNC != 0 {
		t.Error("descriptors were cut off")
	}
	var ids []uint64
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			ids = append(ids, inode(t, fd))
			unix.Close(fd)
		}
	}
	return string(data[:n]), ids
}

// TestDescriptorsKeepTheirPlace: each comes with the byte that it was sent with,
// whatever was sent before and after in whatever pieces, so that one who reads a
// byte at a time, and looks for descriptors only where they belong, gets them.
func TestDescriptorsKeepTheirPlace(t *testing.T) {
	client, server := passing(t, "passfd\n")
	for name, ends := range map[string][2]*net.UnixConn{"to the VMM": {client, server}, "from the VMM": {server, client}} {
		t.Run(name, func(t *testing.T) {
			from, to := ends[0], ends[1]
			type message struct {
				text string
				fds  int
			}
			messages := []message{
				{"before", 0}, {"with one", 1}, {"x", 2}, {"y", 1}, {"plain", 0}, {"again", 0}, {"many", host.MaxDescriptors}, {"after", 0},
			}
			var sent [][]uint64
			for _, m := range messages {
				fds, ids := files(t, m.fds)
				var oob []byte
				if m.fds > 0 {
					oob = unix.UnixRights(fds...)
				}
				if _, _, err := from.WriteMsgUnix([]byte(m.text), oob, nil); err != nil {
					t.Fatal(err)
				}
				host.CloseAll(fds)
				sent = append(sent, ids)
			}
			for i, m := range messages {
				for at := range m.text {
					var want []uint64
					if at == 0 {
						want = sent[i]
					}
					text, ids := take(t, to, 1)
					if text != m.text[at:at+1] || fmt.Sprint(ids) != fmt.Sprint(want) {
						t.Fatalf("%q at %d: %q with %d descriptors, not %d", m.text, at, text, len(ids), len(want))
					}
				}
			}
		})
	}
}

// TestDescriptorsDoNotLeak: each is passed on once, and closed here.
func TestDescriptorsDoNotLeak(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	client, server := passing(t, "passfd\n")
	random := rand.New(rand.NewPCG(1, 2))
	before := descriptors(t)
	fds, ids := files(t, 4)
	for round := range rounds {
		from, to := client, server
		if round%2 == 1 {
			from, to = server, client
		}
		n := 1 + random.IntN(len(fds))
		text := bytes.Repeat([]byte{byte(round)}, 1+random.IntN(2000))
		if _, _, err := from.WriteMsgUnix(text, unix.UnixRights(fds[:n]...), nil); err != nil {
			t.Fatal(err)
		}
		got, with := take(t, to, 4096)
		if got != string(text) || fmt.Sprint(with) != fmt.Sprint(ids[:n]) {
			t.Fatalf("round %d: %d bytes with %d descriptors, not %d with %d", round, len(got), len(with), len(text), n)
		}
	}
	host.CloseAll(fds)
	// The last copies are closed after they have been passed on.
	eventually(t, "as few are open as before", func() bool { return descriptors(t) <= before })
}

// TestDescriptorsOfTheDead: descriptors that cannot be passed on are closed.
func TestDescriptorsOfTheDead(t *testing.T) {
	client, server := passing(t, "passfd\n")
	fds, _ := files(t, 3)
	before := descriptors(t)
	server.Close()
	for err := error(nil); err == nil; {
		_, _, err = client.WriteMsgUnix([]byte("x"), unix.UnixRights(fds...), nil)
	}
	host.CloseAll(fds)
	eventually(t, "all are closed", func() bool { return descriptors(t) <= before-3 })
}

// TestNoRoomForDescriptors: a message whose descriptors get lost ends the
// connection, rather than be passed on without them.
func TestNoRoomForDescriptors(t *testing.T) {
	client, server := passing(t, "passfd\n")
	fds, _ := files(t, 8)
	defer host.CloseAll(fds)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(fds[7]) + 3, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	_, _, err := client.WriteMsgUnix([]byte("text"), unix.UnixRights(fds...), nil)
	if err != nil {
		t.Error(err)
	}
	_ = server.SetReadDeadline(time.Now().Add(patience))
	n, err := server.Read(make([]byte, 10))
	if lerr := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); lerr != nil {
		t.Fatal(lerr)
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
}

// TestHalfClose: each end learns that the other sends no more, and can go on.
func TestHalfClose(t *testing.T) {
	for name, fromClient := range map[string]bool{"client": true, "VMM": false} {
		t.Run(name, func(t *testing.T) {
			client, server := passing(t, "other\n")
			a, b := server, client
			if fromClient {
				a, b = client, server
			}
			if _, err := io.WriteString(a, "last words"); err != nil {
				t.Fatal(err)
			}
			if err := a.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(b); err != nil || string(got) != "last words" {
				t.Errorf("%q, %v", got, err)
			}
			big := bytes.Repeat([]byte("answer"), 100_000)
			var writing sync.WaitGroup
			writing.Go(func() {
				_, _ = b.Write(big)
				b.Close()
			})
			if got, err := io.ReadAll(a); err != nil || !bytes.Equal(got, big) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			writing.Wait()
		})
	}
}

// TestDeafness: when one end stops reading, the other's writes fail.
func TestDeafness(t *testing.T) {
	for name, fromClient := range map[string]bool{"client": true, "VMM": false} {
		t.Run(name, func(t *testing.T) {
			client, server := passing(t, "other\n")
			a, b := server, client
			if fromClient {
				a, b = client, server
			}
			if err := a.CloseRead(); err != nil {
				t.Fatal(err)
			}
			_ = b.SetDeadline(time.Now().Add(patience))
			full := make([]byte, 1<<20) // more than there is room for
			for err := error(nil); !errors.Is(err, unix.EPIPE); {
				if _, err = b.Write(full); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
			}
			if _, err := io.WriteString(a, "still here"); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(b, make([]byte, 10)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBytesPass: many bytes, both ways at once, in odd pieces.
func TestBytesPass(t *testing.T) {
	client, server := passing(t, "other\n")
	const size = 8 << 20
	data := make([]byte, size)
	random := rand.New(rand.NewPCG(3, 4))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	var both sync.WaitGroup
	for i, ends := range [][2]*net.UnixConn{{client, server}, {server, client}} {
		both.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 5))
			for rest := data; len(rest) > 0; {
				n := min(1+random.IntN(200_000), len(rest))
				if _, err := ends[0].Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		})
		both.Go(func() {
			got := make([]byte, size)
			_ = ends[1].SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(ends[1], got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("other bytes, %v", err)
			}
		})
	}
	both.Wait()
}
