package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// stranger connects to the guard as anything.
func stranger(t *testing.T, h *machine) *net.UnixConn {
	t.Helper()
	link, err := dial(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { link.Close() })
	return link
}

// raw sends a packet, whatever it is.
func raw(t *testing.T, link *net.UnixConn, packet string, files ...int) {
	t.Helper()
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	if _, _, err := link.WriteMsgUnix([]byte(packet), rights, nil); err != nil && !errors.Is(err, unix.EPIPE) {
		t.Fatal(err)
	}
}

// refused expects that the guard ends the link, and says why.
func refused(t *testing.T, link *net.UnixConn, why string) {
	t.Helper()
	_ = link.SetReadDeadline(time.Now().Add(patience))
	m, _, err := awaitPacket(link, make([]byte, maxPacket))
	if err != nil || m.Type != typeRefused || !strings.Contains(m.Error, why) {
		t.Errorf("got %+v, %v, want a refusal with %q", m, err, why)
	}
	if _, _, err := awaitPacket(link, make([]byte, maxPacket)); err != io.EOF {
		t.Errorf("the link goes on: %v", err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestStrangeMessages: what is no message, or of another version, or beyond the bounds,
// ends the link and leaves no descriptor; a relay beside it is guarded on.
func TestStrangeMessages(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	socket, _ := h.relay("relay")
	before := h.registered(socket, anyStatus)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	many := make([]int, maxFiles+8)
	for i := range many {
		many[i] = fd
	}
	had := descriptors(t)
	const who = `"who":{"id":"x","program":"/x","args":["x"]}`
	for packet, tt := range map[string]struct {
		why   string
		files []int
	}{
		"register, please":                {"not a message", nil},
		"{}":                              {"version 0", nil},
		`{"version":2,"type":"register"}`: {"version 2, this is version 1", nil},
		`{"version":1,"type":"register"}`: {"lacks", nil},
		`{"version":1,"type":"register",` + who + `}`:                                  {"lacks", nil},
		`{"version":1,"type":"register","files":1,` + who + `}`:                        {"0 of 1 descriptors", nil},
		`{"version":1,"type":"register","files":1,"who":{"id":"x"}}`:                   {"lacks", []int{fd}},
		`{"version":1,"type":"register","files":1,"who":{"id":"y"},"x":0}`:             {"", many},
		`{"version":1,"type":"store","name":"x","files":1}`:                            {"who has not registered", []int{fd}},
		`{"version":1,"type":"store","name":"x","kind":"relayed","files":1}`:           {"lacks", []int{fd}},
		`{"version":1,"type":"claim","cid":7}`:                                         {"who has not registered", nil},
		`{"version":1,"type":"what"}`:                                                  {"who has not registered", nil},
		`{"version":1,"type":"store","name":"` + strings.Repeat("x", maxName+1) + `"}`: {"too large", nil},
		`{"version":1,"type":"` + strings.Repeat("x", maxPacket) + `"}`:                {"more than", nil},
		`{"version":1,"type":"` + strings.Repeat("x", maxSmall) + `"}`:                 {"too large", nil},
	} {
		link := stranger(t, h)
		raw(t, link, packet, tt.files...)
		refused(t, link, tt.why)
		link.Close()
	}
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= had })
	if s := h.registered(socket, anyStatus); s != before {
		t.Errorf("the relay is %+v, was %+v", s, before)
	}
}

// TestTooMuch: a relay may not leave more entries than there may be; it goes on unguarded.
func TestTooMuch(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	had := descriptors(t)
	link := stranger(t, h)
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	if err := host.Control(link, func(fd int) error {
		return sendPacket(fd, message{Type: typeRegister, Who: &Registration{ID: "x", Program: "/x", Args: []string{"x"}}}, self)
	}); err != nil {
		t.Fatal(err)
	}
	for i := range maxEntries + 1 {
		raw(t, link, fmt.Sprintf(`{"version":1,"type":"store","name":"%d","files":1}`, i), int(null.Fd()))
	}
	refused(t, link, "more than")
	link.Close()
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= had+2 })
}

// TestFlood: thousands of links and registrations take no more than there is room for,
// and a relay that was there before is guarded on.
func TestFlood(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	_, p, c, _ := h.relaying()
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	for i := range maxRelays + 2*maxStrangers {
		link, err := dial(h.dir)
		if err != nil {
			t.Fatal(err)
		}
		_ = host.Control(link, func(fd int) error {
			return sendPacket(fd, message{Type: typeRegister, Who: &Registration{ID: fmt.Sprint(i), Program: "/x", Args: []string{"x"}}}, self)
		})
		defer link.Close()
	}
	eventually(t, "some are refused", func() bool { return h.log.contains("there are 4096 relays already") })
	p.signal(unix.SIGKILL)
	call(t, c, "still")
}

// TestOtherUser: nobody else's guard is believed, and nobody else registers.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root")
	}
	h := newMachine(t)
	h.guard(nil)
	// Were the directory and the socket open to all, the guard would still look.
	for _, path := range []string{h.dir, socketPath(h.dir)} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	other := h.startAs(12345, "other", []string{h.dir})
	other.expect("no answer")
	impostor := shortDir(t)
	if err := os.Chown(impostor, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	p := h.startAs(12345, "impost", []string{impostor})
	p.expect("up")
	if link, err := dial(impostor); err == nil || !strings.Contains(err.Error(), "12345") {
		t.Errorf("a guard of another user is believed: %v, %v", link, err)
	}
}

func otherRole(dir string) error {
	conn, err := net.Dial("unixpacket", filepath.Join(dir, socketName))
	if err != nil {
		return err
	}
	m, err := message{Type: typeStatus}.encode()
	if err != nil {
		return err
	}
	_, _ = conn.Write(m)
	if n, _ := conn.Read(make([]byte, 100)); n == 0 {
		fmt.Println("no answer")
	}
	return nil
}

func impostRole(dir string) error {
	l, err := net.Listen("unixpacket", filepath.Join(dir, socketName))
	if err != nil {
		return err
	}
	fmt.Println("up")
	for {
		if _, err := l.Accept(); err != nil {
			return err
		}
	}
}

// TestNoGuard: without one, nothing waits and nothing fails.
func TestNoGuard(t *testing.T) {
	h := newMachine(t)
	socket, _ := h.relay("relay")
	call(t, connect(t, socket), "as ever")
}

// TestStoppedGuard: a guard that reads nothing keeps nobody waiting, and those that it
// misses register again with the next one.
func TestStoppedGuard(t *testing.T) {
	h := newMachine(t)
	g := h.start("guard", []string{h.dir})
	eventually(t, "the guard answers", func() bool {
		_, _, err := Ask(context.Background(), h.dir)
		return err == nil
	})
	logged := &lines{t: t}
	c := new(Client)
	c.Register(ClientOptions{Dir: h.dir, Who: Registration{ID: "x", Program: "/x", Args: []string{"x"}}, Logf: logged.add})
	defer c.Leave()
	eventually(t, "it is guarded", c.Guarded)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	testkit.Stop(t, g.cmd.Process.Pid)
	began := time.Now()
	for i := 0; c.Guarded() && i < 100000; i++ {
		c.Store(Entry{Name: fmt.Sprint(i % 100), Files: []syscall.Conn{null}})
	}
	if c.Guarded() {
		t.Error("a guard that hears nothing counts as one")
	}
	t.Logf("it took %v until the link was full", time.Since(began))
	g.signal(unix.SIGKILL)
	h.guard(nil)
	eventually(t, "it is guarded by another", func() bool {
		_, all, _ := Ask(context.Background(), h.dir)
		return len(all) == 1 && all[0].Guarded && all[0].Entries == 100
	})
}

// FuzzDecode: whatever arrives is a message within bounds or an error.
func FuzzDecode(f *testing.F) {
	for _, m := range []message{
		{Type: typeRegister, Files: 1, Who: &Registration{ID: "x", Program: "/x", Args: []string{"x"}}},
		{Type: typeStore, Name: "conn/1", Kind: Relayed, Data: []byte("x"), Files: 3},
		{Type: typeResume, Cause: Hung, PID: 7, At: time.Now(), Attempt: 2},
		{Type: typeRelay, Relay: &Status{ID: "x"}},
	} {
		b, err := m.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, m.Files)
	}
	f.Fuzz(func(t *testing.T, packet []byte, files int) {
		m, err := decode(packet, files)
		if err != nil {
			return
		}
		if m.Version != Version || m.Files != files || len(m.Name) > maxName || len(m.Data) > maxData {
			t.Fatalf("%q is %+v", packet, m)
		}
		if n := m.Kind.files(); m.Type == typeStore && n != 0 && n != files {
			t.Fatalf("%q has %d descriptors", packet, files)
		}
	})
}
