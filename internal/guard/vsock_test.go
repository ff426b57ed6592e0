package guard

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stand is a stand-in for VSOCK: an abstract Unix socket, whose clients' addresses end
// with their CID. Nothing of the test goes over AF_VSOCK.
type stand struct{ name string }

func newStand(t *testing.T) stand {
	return stand{fmt.Sprintf("@shimtrace-guard-%d-%s", os.Getpid(), t.Name())}
}

func (s stand) listen() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: s.name}); err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("listen: %w", err)
	}
	return fd, nil
}

func (s stand) cid(from unix.Sockaddr) uint32 {
	a, ok := from.(*unix.SockaddrUnix)
	if !ok {
		return 0
	}
	cid, _ := strconv.ParseUint(a.Name[strings.LastIndexByte(a.Name, '-')+1:], 10, 32)
	return uint32(cid)
}

func (s stand) options(o *Options) { o.VSOCK, o.CID = s.listen, s.cid }

var vms struct {
	sync.Mutex
	n int
}

// dial connects as a VM.
func (s stand) dial(t *testing.T, cid uint32) *net.UnixConn {
	t.Helper()
	vms.Lock()
	vms.n++
	local := fmt.Sprintf("@vm-%d-%d-%d", os.Getpid(), vms.n, cid)
	vms.Unlock()
	var c *net.UnixConn
	eventually(t, "the port is open", func() (open bool) {
		var err error
		c, err = net.DialUnix("unix", &net.UnixAddr{Name: local, Net: "unix"}, &net.UnixAddr{Name: s.name, Net: "unix"})
		return err == nil
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// taker is a relay that takes VMs' connections.
type taker struct {
	*Client
	arrived chan arrival
}

type arrival struct {
	conn net.Conn
	cid  uint32
}

func (h *machine) taker(id string) taker {
	arrived := make(chan arrival, 100)
	c := new(Client)
	c.Register(ClientOptions{
		Dir: h.dir, Who: Registration{ID: id, Program: "/x", Args: []string{"x"}}, Logf: h.log.add,
		VSOCK: func(f *os.File, cid uint32) {
			conn, err := net.FileConn(f)
			f.Close()
			if err != nil {
				h.t.Error(err)
				return
			}
			arrived <- arrival{conn, cid}
		},
	})
	h.t.Cleanup(func() {
		c.Leave()
		for len(arrived) > 0 {
			(<-arrived).conn.Close()
		}
	})
	eventually(h.t, "the relay is registered", c.Guarded)
	return taker{c, arrived}
}

func (k taker) await(t *testing.T) arrival {
	t.Helper()
	select {
	case a := <-k.arrived:
		t.Cleanup(func() { a.conn.Close() })
		return a
	case <-time.After(patience):
		t.Fatal("no connection arrives")
		return arrival{}
	}
}

// carries checks that what the VM writes comes out, from its first byte on.
func (a arrival) carries(t *testing.T, vm *net.UnixConn, text string) {
	t.Helper()
	if _, err := vm.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	a.reads(t, text)
}

func (a arrival) reads(t *testing.T, text string) {
	t.Helper()
	_ = a.conn.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, len(text))
	if _, err := io.ReadFull(a.conn, b); err != nil || string(b) != text {
		t.Fatalf("read %q, %v, not %q", b, err, text)
	}
}

func TestVSOCKClaimed(t *testing.T) {
	s, h := newStand(t), newMachine(t)
	h.guard(s.options)
	first, second := h.taker("first"), h.taker("second")
	first.Claim(76)
	early := s.dial(t, 77)
	if _, err := early.Write([]byte("early ")); err != nil {
		t.Fatal(err)
	}
	second.Claim(77)
	a := second.await(t)
	if a.cid != 77 {
		t.Errorf("it is of VM %d", a.cid)
	}
	a.reads(t, "early ")
	a.carries(t, early, "and late")
	vm := s.dial(t, 76)
	first.await(t).carries(t, vm, "its own")
	if len(first.arrived)+len(second.arrived) != 0 {
		t.Error("another one got it, too")
	}
	// The last relay to claim a CID has it.
	first.Claim(77)
	eventually(t, "the first has it", func() bool {
		s.dial(t, 77)
		select {
		case a := <-first.arrived:
			a.conn.Close()
			return true
		case a := <-second.arrived:
			a.conn.Close()
			return false
		}
	})
}

// TestVSOCKUnclaimed: a VM that nobody claims goes to any relay, after a while.
func TestVSOCKUnclaimed(t *testing.T) {
	s, h := newStand(t), newMachine(t)
	h.guard(func(o *Options) { s.options(o); o.Hold = 20 * time.Millisecond })
	k := h.taker("first")
	k.Claim(99)
	vm := s.dial(t, 4000000000)
	a := k.await(t)
	if a.cid != 4000000000 {
		t.Errorf("it is of VM %d", a.cid)
	}
	a.carries(t, vm, "of nobody")
}

// TestVSOCKHost: connections from the host itself are none of a VM.
func TestVSOCKHost(t *testing.T) {
	s, h := newStand(t), newMachine(t)
	h.guard(s.options)
	k := h.taker("first")
	for cid := range uint32(firstGuest) {
		closed(t, s.dial(t, cid))
	}
	if len(k.arrived) != 0 {
		t.Error("a connection of the host was kept")
	}
}

func closed(t *testing.T, vm *net.UnixConn) {
	t.Helper()
	_ = vm.SetReadDeadline(time.Now().Add(patience))
	if _, err := vm.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v, not closed", err)
	}
}

// TestVSOCKHeld: VMs that nobody claims keep no others waiting, nor take room without end.
func TestVSOCKHeld(t *testing.T) {
	s, h := newStand(t), newMachine(t)
	h.guard(func(o *Options) { s.options(o); o.Hold = time.Hour })
	k := h.taker("first")
	for cid := range uint32(maxWaiting + 2) { // two are passed on at once
		s.dial(t, 100+cid)
	}
	k.await(t)
	k.await(t)
	k.Claim(9)
	vm := s.dial(t, 9)
	a := k.await(t)
	if a.cid != 9 {
		t.Errorf("VM %d got through", a.cid)
	}
	a.carries(t, vm, "not held up")
}

// TestVSOCKManyOfOne: a VM that opens connections without end is refused, and takes no
// room from others.
func TestVSOCKManyOfOne(t *testing.T) {
	s, h := newStand(t), newMachine(t)
	h.guard(func(o *Options) { s.options(o); o.Hold = time.Hour })
	k := h.taker("first")
	var all []*net.UnixConn
	for range 20 {
		all = append(all, s.dial(t, 50))
	}
	for _, vm := range all[maxPlacing:] {
		closed(t, vm)
	}
	k.Claim(51)
	vm := s.dial(t, 51)
	k.await(t).carries(t, vm, "unharmed")
	k.Claim(50)
	for _, vm := range all[:maxPlacing] {
		k.await(t).carries(t, vm, "those as well")
	}
}

// TestVSOCKPortTaken: another program has the port, and then ends.
func TestVSOCKPortTaken(t *testing.T) {
	s, h := newStand(t), newMachine(t)
	other, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	h.guard(s.options)
	k := h.taker("first")
	k.Claim(60)
	eventually(t, "somebody is told", func() bool { return h.log.contains("another program") })
	unix.Close(other)
	vm := s.dial(t, 60)
	k.await(t).carries(t, vm, "at last")
}

// TestVSOCKGuardReplaced: what was handed on is no concern of the guard any more, and the
// next one serves those that claim again.
func TestVSOCKGuardReplaced(t *testing.T) {
	s, h := newStand(t), newMachine(t)
	stop := h.guard(s.options)
	k := h.taker("first")
	k.Claim(70)
	vm := s.dial(t, 70)
	a := k.await(t)
	a.carries(t, vm, "before")
	stop()
	a.carries(t, vm, " and after")
	h.guard(s.options)
	eventually(t, "it is guarded by another", k.Guarded)
	next := s.dial(t, 70)
	k.await(t).carries(t, next, "by the next one")
}

// TestVSOCKRelayProcess: a relay in another process gets the connection itself.
func TestVSOCKRelayProcess(t *testing.T) {
	s, h := newStand(t), newMachine(t)
	h.guard(func(o *Options) { s.options(o); o.Hold = time.Millisecond })
	socket, _ := h.relay("relay", "TEST_VSOCK=1")
	h.registered(socket, anyStatus)
	vm := s.dial(t, 1234)
	_ = vm.SetReadDeadline(time.Now().Add(patience))
	if line, err := bufio.NewReader(vm).ReadString('\n'); err != nil || line != "1234\n" {
		t.Errorf("it says %q, %v", line, err)
	}
}

// TestVSOCKNone: a host without VSOCK has a guard all the same.
func TestVSOCKNone(t *testing.T) {
	h := newMachine(t)
	h.guard(func(o *Options) {
		o.VSOCK = func() (int, error) { return 0, fmt.Errorf("VSOCK: %w", unix.EAFNOSUPPORT) }
	})
	_, p, c, _ := h.relaying("TEST_VSOCK=1")
	p.signal(unix.SIGKILL)
	call(t, c, "again")
	eventually(t, "it is said", func() bool { return h.log.contains("VSOCK") })
}
