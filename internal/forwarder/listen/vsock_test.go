package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// arrival is a connection that a share was handed.
type arrival struct {
	conn Conn
	from Origin
}

// share runs a relay's share in this process until the test ends, or until stop.
func share(t *testing.T, opts VSOCKOptions) (v *VSOCK, arrived chan arrival, stop func()) {
	t.Helper()
	arrived = make(chan arrival, 256)
	var mu sync.Mutex
	var all []Conn
	if opts.Warn == nil {
		opts.Warn = func(err error) { t.Log("warning:", err) }
	}
	v = NewVSOCK(opts, func(conn Conn, from Origin) {
		mu.Lock()
		all = append(all, conn)
		mu.Unlock()
		arrived <- arrival{conn, from}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := v.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() {
		cancel()
		serving.Wait()
	}
	t.Cleanup(func() {
		stop()
		for _, c := range all {
			c.Close()
		}
	})
	return v, arrived, stop
}

func options(t *testing.T) (VSOCKOptions, string) {
	name := fmt.Sprintf("shimtrace-test-%d-%s", os.Getpid(), t.Name())
	return VSOCKOptions{Dir: filepath.Join(t.TempDir(), "porter"), Hold: patience, transport: abstractTransport(name)}, name
}

func await(t *testing.T, arrived chan arrival) arrival {
	t.Helper()
	select {
	case a := <-arrived:
		return a
	case <-time.After(patience):
		t.Fatal("no connection arrives")
		return arrival{}
	}
}

// carries checks that what the VM writes comes out of the connection, from its
// first byte on.
func (a arrival) carries(t *testing.T, vm *net.UnixConn, text string) {
	t.Helper()
	if _, err := vm.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	_ = a.conn.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, len(text))
	if _, err := io.ReadFull(a.conn, b); err != nil || string(b) != text {
		t.Fatalf("read %q, %v, not %q", b, err, text)
	}
}

func TestVSOCKClaimedLate(t *testing.T) {
	opts, name := options(t)
	_, firstArrived, _ := share(t, opts)
	late, arrived, _ := share(t, opts)
	vm := mustDialVM(t, name, 77)
	if _, err := vm.Write([]byte("early ")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second share has a porter", func() bool {
		late.mu.Lock()
		defer late.mu.Unlock()
		return late.porter != nil
	})
	late.Claim("late", 77)
	a := await(t, arrived)
	if want := (Origin{Sandbox: "late", CID: 77}); a.from != want {
		t.Errorf("comes from %+v, not %+v", a.from, want)
	}
	b := make([]byte, 6)
	if _, err := io.ReadFull(a.conn, b); err != nil || string(b) != "early " {
		t.Errorf("read %q, %v: something was read before", b, err)
	}
	a.carries(t, vm, "and late")
	if n := len(firstArrived); n != 0 {
		t.Errorf("the other relay got %d connections", n)
	}
}

func TestVSOCKUnknown(t *testing.T) {
	opts, name := options(t)
	opts.Hold = 20 * time.Millisecond
	_, arrived, _ := share(t, opts)
	vm := mustDialVM(t, name, 4000000000)
	a := await(t, arrived)
	if want := (Origin{CID: 4000000000}); a.from != want {
		t.Errorf("comes from %+v, not %+v", a.from, want)
	}
	a.carries(t, vm, "of nobody")
}

// TestVSOCKHost: connections from the host itself are none of a VM.
func TestVSOCKHost(t *testing.T) {
	opts, name := options(t)
	opts.Hold = time.Millisecond
	_, arrived, _ := share(t, opts)
	for cid := range uint32(3) {
		vm := mustDialVM(t, name, cid)
		_ = vm.SetReadDeadline(time.Now().Add(patience))
		if _, err := vm.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("CID %d: read: %v, not closed", cid, err)
		}
	}
	if len(arrived) != 0 {
		t.Error("a connection of the host was kept")
	}
}

// TestVSOCKHeld: those that nobody claims cannot make others of the porter's
// relays wait, nor take room without end.
func TestVSOCKHeld(t *testing.T) {
	opts, name := options(t)
	opts.MaxHeld = 3
	v, arrived, _ := share(t, opts)
	for cid := range uint32(5) { // three wait, two are kept at once
		mustDialVM(t, name, 100+cid)
	}
	for range 2 {
		if a := await(t, arrived); a.from.Sandbox != "" {
			t.Errorf("comes from %+v", a.from)
		}
	}
	v.Claim("known", 200)
	eventually(t, "a VM that is claimed gets through", func() bool {
		vm := mustDialVM(t, name, 200)
		a := await(t, arrived)
		if a.from.Sandbox != "known" {
			return false // the porter had not heard of the claim yet
		}
		a.carries(t, vm, "not held up")
		return true
	})
}

// TestVSOCKManyOfOne: a VM that opens connections without end is refused, and
// takes no room from others.
func TestVSOCKManyOfOne(t *testing.T) {
	opts, name := options(t)
	v, arrived, _ := share(t, opts)
	closed := make(chan struct{}, 20)
	var readers sync.WaitGroup
	var vms []*net.UnixConn
	for range 20 {
		vm := mustDialVM(t, name, 50)
		vms = append(vms, vm)
		readers.Go(func() {
			if _, err := vm.Read(make([]byte, 1)); err == io.EOF {
				closed <- struct{}{}
			}
		})
	}
	for range 20 - maxPlacing {
		select {
		case <-closed:
		case <-time.After(patience):
			t.Fatal("connections beyond the limit stay open")
		}
	}
	if len(closed) != 0 || len(arrived) != 0 {
		t.Errorf("%d more closed, %d arrived", len(closed), len(arrived))
	}
	v.Claim("good", 51)
	good := mustDialVM(t, name, 51)
	await(t, arrived).carries(t, good, "unharmed")
	for _, vm := range vms {
		vm.Close()
	}
	readers.Wait()
}

// TestVSOCKPorterLeaves: a porter that ends in order loses nothing, not even what
// nobody has claimed.
func TestVSOCKPorterLeaves(t *testing.T) {
	opts, name := options(t)
	_, _, stopFirst := share(t, opts)
	waiting := mustDialVM(t, name, 90) // so there is a porter
	second, arrived, _ := share(t, opts)
	second.Claim("second", 91)
	own := mustDialVM(t, name, 91)
	a := await(t, arrived)
	a.carries(t, own, "before")
	stopFirst()
	a.carries(t, own, " and after")
	stray := await(t, arrived)
	if want := (Origin{CID: 90}); stray.from != want {
		t.Errorf("comes from %+v, not %+v", stray.from, want)
	}
	stray.carries(t, waiting, "passed on")
	vm := mustDialVM(t, name, 91)
	await(t, arrived).carries(t, vm, "by the next porter")
}

// TestVSOCKPortTaken: another program has the port, and then ends.
func TestVSOCKPortTaken(t *testing.T) {
	opts, name := options(t)
	foreign, err := opts.transport.listen()
	if err != nil {
		t.Fatal(err)
	}
	warned := make(chan error, 100)
	opts.Warn = func(err error) { warned <- err }
	v, arrived, _ := share(t, opts)
	v.Claim("patient", 60)
	select {
	case err := <-warned:
		if !strings.Contains(err.Error(), "another program") {
			t.Errorf("warns %q", err)
		}
	case <-time.After(patience):
		t.Fatal("nobody is warned")
	}
	foreign.Close()
	vm := mustDialVM(t, name, 60)
	await(t, arrived).carries(t, vm, "at last")
	if len(warned) > 0 {
		t.Errorf("warned again: %v", <-warned)
	}
}

// TestVSOCKListenerOffered: a porter that does not know the listening socket gets
// it from a relay that does.
func TestVSOCKListenerOffered(t *testing.T) {
	opts, name := options(t)
	keeper, arrived, _ := share(t, opts)
	keeper.Claim("keeper", 70)
	eventually(t, "the relay has the listening socket", func() bool {
		keeper.mu.Lock()
		defer keeper.mu.Unlock()
		return keeper.listener != nil
	})
	// Another directory: its porter knows nothing of the first.
	other := opts
	other.Dir = filepath.Join(t.TempDir(), "porter")
	stranger, strangerArrived, _ := share(t, other)
	eventually(t, "the stranger has a porter", func() bool {
		stranger.mu.Lock()
		defer stranger.mu.Unlock()
		return stranger.porter != nil
	})
	conn, err := stranger.dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	keeper.mu.Lock()
	d, err := passable(keeper.listener)
	keeper.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := send(conn, kindListener, 0, d); err != nil {
		t.Fatal(err)
	}
	if m, err := receive(conn); err != nil || m.kind != kindListener {
		t.Fatalf("the porter answers %q, %v, and not with the listening socket", m.kind, err)
	} else {
		m.close()
	}
	stranger.Claim("stranger", 70)
	vm := mustDialVM(t, name, 70)
	select { // whichever of the two porters was faster
	case a := <-arrived:
		a.carries(t, vm, "to the one")
	case a := <-strangerArrived:
		a.carries(t, vm, "to the other")
	case <-time.After(patience):
		t.Error("neither porter accepts")
	}
}

// TestVSOCKProtocol: what is no message does no harm and leaves no descriptor.
func TestVSOCKProtocol(t *testing.T) {
	opts, name := options(t)
	v, arrived, _ := share(t, opts)
	v.Claim("sandbox", 10)
	vm := mustDialVM(t, name, 10)
	await(t, arrived).carries(t, vm, "before")
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	for _, bad := range []func(c *net.UnixConn){
		func(c *net.UnixConn) { _, _ = c.Write([]byte("c")) },
		func(c *net.UnixConn) { _, _ = c.Write([]byte("claim everything, please")) },
		func(c *net.UnixConn) { _, _ = c.Write(make([]byte, 4096)) },
		func(c *net.UnixConn) { _ = send(c, kindClaim, 10, d) },
		func(c *net.UnixConn) { _ = send(c, kindListener, 0, nil) },
		func(c *net.UnixConn) { _ = send(c, kindListener, 0, d) },
		func(c *net.UnixConn) { _ = send(c, kindConnection, 10, d) },
		func(c *net.UnixConn) { _ = send(c, 'z', 10, nil) },
	} {
		c, err := v.dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		bad(c)
		c.Close()
	}
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
	again := mustDialVM(t, name, 10)
	await(t, arrived).carries(t, again, "after")
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestVSOCKDirectoryUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v := NewVSOCK(VSOCKOptions{Dir: filepath.Join(file, "porter")}, func(c Conn, _ Origin) { c.Close() })
	if err := v.Serve(context.Background()); err == nil {
		t.Error("no error")
	}
}

// TestVSOCKHere: the real address family can be listened at, or says why not.
// Nothing connects.
func TestVSOCKHere(t *testing.T) {
	l, err := listenVSOCK()
	if err != nil {
		var errno interface{ Timeout() bool }
		if !errors.As(err, &errno) || !strings.Contains(err.Error(), "VSOCK") {
			t.Errorf("unhelpful error %v", err)
		}
		t.Skip("no VSOCK here: ", err)
	}
	defer l.Close()
	if _, err := listenVSOCK(); err == nil || !strings.Contains(err.Error(), "10240") {
		t.Errorf("the port can be had twice: %v", err)
	}
}
