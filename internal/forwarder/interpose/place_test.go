package interpose

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// TestTakesPlace: the directory comes later, and the socket in it still later.
func TestTakesPlace(t *testing.T) {
	pattern, path := at(t)
	i, stop := interposer(t, pattern, Options{})
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	umask := unix.Umask(0o017) // group may connect
	v := startVMM(t, path)
	unix.Umask(umask)
	taken(t, path)
	t.Logf("taken %v after it was bound", time.Since(began).Round(10*time.Microsecond))
	before, vst := identify(t, filepath.Join(filepath.Dir(path), names(t, path)[0]))
	id, st := identify(t, path)
	if id == before || st.Mode != vst.Mode || st.Uid != vst.Uid || st.Gid != vst.Gid {
		t.Errorf("ours is %o of %d:%d, the VMM's %o of %d:%d", st.Mode, st.Uid, st.Gid, vst.Mode, vst.Uid, vst.Gid)
	}
	if st.Mode&0o777 != 0o760 {
		t.Errorf("mode %o", st.Mode)
	}
	if v.total.Load() != 0 {
		t.Error("the VMM was connected to")
	}
	conn := dial(t, path)
	if err := converse(conn, "connect 1024\n", "request"); err != nil {
		t.Fatal(err)
	}
	mustConverse(t, path)
	passing := dial(t, path)
	if err := converse(passing, "CONNECT 1025\n", "log"); err != nil {
		t.Fatal(err)
	}
	passing.Close()
	eventually(t, "counts", func() bool { return i.Counts() == Counts{Relayed: 2, Passed: 1} })

	// Open connections go on when the place is given back.
	go stop()
	eventually(t, "the VMM's is back", func() bool {
		id, _ := identify(t, path)
		return id == before
	})
	if _, err := io.WriteString(conn, "more"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		t.Error(err)
	}
	conn.Close()
	stop()
	alone(t, path)
	mustConverse(t, path)
	if i.Counts().Relayed != 2 {
		t.Error("relayed after the end")
	}
}

// TestTakesPlaceByLink: the VM is from Kata's factory, and the sandbox's directory is a
// link to the factory's.
func TestTakesPlaceByLink(t *testing.T) {
	pattern, path := at(t)
	vms := filepath.Dir(filepath.Dir(path))
	real := filepath.Join(vms, "5a0f", filepath.Base(path))
	if err := os.Mkdir(filepath.Dir(real), 0o755); err != nil {
		t.Fatal(err)
	}
	v := startVMM(t, real)
	before, _ := identify(t, real)
	i, stop := interposer(t, pattern, Options{})
	mustConverse(t, real) // the runtime, before the sandbox has the VM
	if err := os.Symlink(filepath.Dir(real), filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	taken(t, real)
	mustConverse(t, real)
	eventually(t, "it is relayed", func() bool { return i.Counts().Relayed == 1 })
	stop()
	if now, _ := identify(t, real); now != before || v.total.Load() != 2 {
		t.Errorf("the VMM's is not back, or it had %d connections", v.total.Load())
	}
	alone(t, real)
}

// TestTakesPlaceRootless: only the directory of the user that the inner shim has given
// the VMM is used.
func TestTakesPlaceRootless(t *testing.T) {
	needRoot(t)
	const vmmUser, liar = 23456, 12345
	dir := t.TempDir()
	pattern := filepath.Join(dir, "user/{user}/run/kata/{sandbox}/ch-vm.sock")
	of := func(uid int) string {
		path := strings.NewReplacer("{user}", strconv.Itoa(uid), "{sandbox}", "pod").Replace(pattern)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Chown(filepath.Dir(path), uid, uid)); err != nil {
			t.Fatal(err)
		}
		for d := filepath.Dir(path); d != os.TempDir(); d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		startVMM(t, path)
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
		return path
	}
	theirs := of(liar)
	before, _ := identify(t, theirs)
	i, stop := interposer(t, pattern, Options{Owns: func(uid uint32) bool { return uid == vmmUser }})
	ours := of(vmmUser)
	taken(t, ours)
	if _, st := identify(t, ours); st.Uid != vmmUser {
		t.Errorf("the socket is of user %d", st.Uid)
	}
	mustConverse(t, ours)
	eventually(t, "it is relayed", func() bool { return i.Counts().Relayed == 1 })
	if now, _ := identify(t, theirs); now != before {
		t.Error("a stranger's socket was replaced")
	}
	stop()
	alone(t, ours)
}

// TestRace: a connection made before the exchange is the VMM's alone, one made after it
// is relayed, and none in between fails.
func TestRace(t *testing.T) {
	for step, relayed := range map[string]uint64{"bound": 0, "named": 0, "exchanged": 1} {
		t.Run(step, func(t *testing.T) {
			pattern, v := vmmAt(t)
			before := dial(t, v.path)
			there := make(chan net.Conn)
			go1 := make(chan struct{})
			once := sync.OnceFunc(func() {
				there <- dial(t, v.path)
				<-go1
			})
			i, _ := interposer(t, pattern, Options{
				step: func(name string) {
					if name == step {
						once()
					}
				},
			})
			within := <-there
			close(go1)
			taken(t, v.path)
			after := dial(t, v.path)
			for _, conn := range []net.Conn{before, within, after} {
				if err := converse(conn, "CONNECT 1024\n", "request"); err != nil {
					t.Error(err)
				}
				conn.Close()
			}
			if got := i.Counts(); got != (Counts{Relayed: 1 + relayed}) {
				t.Errorf("counts %+v", got)
			}
		})
	}
}

// TestNoErrorMeanwhile: clients that never stop connecting see no error, however
// often the place is taken and given back.
func TestNoErrorMeanwhile(t *testing.T) {
	pattern, v := vmmAt(t)
	over := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			n := 0
			for ; ; n++ {
				select {
				case <-over:
					t.Logf("%d conversations", n)
					return
				default:
				}
				conn, err := net.Dial("unix", v.path)
				if err == nil {
					err = converse(conn, "CONNECT 1024\n", "request")
					conn.Close()
				}
				if err != nil {
					t.Errorf("conversation %d: %v", n, err)
					return
				}
			}
		})
	}
	var relayed uint64
	for range 10 {
		i, stop := interposer(t, pattern, Options{})
		taken(t, v.path)
		eventually(t, "something is relayed", func() bool { return i.Counts().Relayed > 200 })
		stop()
		relayed += i.Counts().Relayed
	}
	close(over)
	clients.Wait()
	t.Logf("%d relayed", relayed)
	alone(t, v.path)
}

// TestFollowsVMM: a VMM that ends in order takes our socket for its own, and what
// it makes anew is taken anew.
func TestFollowsVMM(t *testing.T) {
	pattern, v := vmmAt(t)
	var mu sync.Mutex
	kept := make(map[vmmdir.ID]bool)
	i, stop := interposer(t, pattern, Options{
		Taken: func(s Seat) { mu.Lock(); defer mu.Unlock(); kept[s.Own] = true },
		Left:  func(s Seat) { mu.Lock(); defer mu.Unlock(); delete(kept, s.Own) },
	})
	for n := range uint64(5) {
		taken(t, v.path)
		mustConverse(t, v.path)
		eventually(t, "it is relayed", func() bool { return i.Counts().Relayed == n+1 })
		v.end(t)
		if n%2 == 0 {
			eventually(t, "nothing is left", func() bool { return len(names(t, v.path)) == 0 })
		}
		v.listen(t)
	}
	taken(t, v.path)
	own, _ := identify(t, v.path)
	// Those that were there before are left only now, which that one is not.
	eventually(t, "the last one alone is kept", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(kept) == 1 && kept[own]
	})
	stop()
	if len(kept) != 0 {
		t.Errorf("%v are kept after the end", kept)
	}
}

// TestWatchesAgain: the end of a connection has the place looked at, and a VMM that
// comes back is seen at once.
func TestWatchesAgain(t *testing.T) {
	pattern, v := vmmAt(t)
	i, err := New("pod", Options{Patterns: []listen.Pattern{{VMM: "test", Path: pattern}}, Relay: copyRelay})
	if err != nil {
		t.Fatal(err)
	}
	i.taken = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { i.Serve(ctx) })
	defer serving.Wait()
	defer cancel()
	for n := range uint64(3) {
		taken(t, v.path)
		conn := dial(t, v.path)
		if err := converse(conn, "CONNECT 1024\n", "request"); err != nil {
			t.Fatal(err)
		}
		v.end(t)
		conn.Close()
		eventually(t, "nothing is left", func() bool { return len(names(t, v.path)) == 0 })
		v.listen(t)
		if got := i.Counts().Relayed; got != n+1 {
			t.Errorf("%d relayed", got)
		}
	}
	taken(t, v.path)
}

// TestDirectoryComesBack: a runtime removes a sandbox's directory as a whole.
func TestDirectoryComesBack(t *testing.T) {
	pattern, v := vmmAt(t)
	i, stop := interposer(t, pattern, Options{})
	for n := range uint64(3) {
		taken(t, v.path)
		mustConverse(t, v.path)
		eventually(t, "it is relayed", func() bool { return i.Counts().Relayed == n+1 })
		v.l.Close()
		if err := errors.Join(os.RemoveAll(filepath.Dir(v.path)), os.Mkdir(filepath.Dir(v.path), 0o755)); err != nil {
			t.Fatal(err)
		}
		v.listen(t)
	}
	v.end(t)
	stop()
	if got := names(t, v.path); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// TestDeadVMM: when a VMM is killed, clients see what they would see without us.
func TestDeadVMM(t *testing.T) {
	pattern, path := at(t)
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c := start(t, nil, "vmm", path)
		c.Expect("listens")
		id, _ := identify(t, path)
		i, stop := interposer(t, pattern, Options{})
		taken(t, path)
		conn := dial(t, path)
		if err := converse(conn, "CONNECT 1024\n", "request"); err != nil {
			t.Fatal(err)
		}
		c.Kill()
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the dead VMM speaks")
		}
		conn.Close()
		eventually(t, "connections are refused", func() bool { return refused(path) })
		if now, _ := identify(t, path); now != id {
			t.Error("what is left is not the VMM's")
		}
		alone(t, path)
		if refusals := i.Counts(); refusals.Relayed != 1 {
			t.Errorf("counts %+v", refusals)
		}

		// Another VMM takes over, if under the same identity.
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		again := start(t, nil, "vmm", path)
		again.Expect("listens")
		taken(t, path)
		mustConverse(t, path)
		eventually(t, "it is relayed", func() bool { return i.Counts().Relayed == 2 })
		again.Kill()
		stop()
		if !refused(path) {
			t.Error("somebody answers for the dead VMM")
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBoundBeforeListening: in the moment between a VMM's bind and its listen, a
// client waits instead of being refused; if listening never comes, it is refused.
func TestBoundBeforeListening(t *testing.T) {
	for name, listens := range map[string]bool{"listens": true, "never": false} {
		t.Run(name, func(t *testing.T) {
			pattern, path := at(t)
			if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), "VMM")
			defer f.Close()
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				t.Fatal(err)
			}
			interposer(t, pattern, Options{})
			taken(t, path)
			conn := dial(t, path)
			if _, err := io.WriteString(conn, "CONNECT 1024\n"); err != nil {
				t.Fatal(err)
			}
			if !listens {
				if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				eventually(t, "connections are refused", func() bool { return refused(path) })
				return
			}
			if err := unix.Listen(fd, 10); err != nil {
				t.Fatal(err)
			}
			l, err := net.FileListener(f)
			if err != nil {
				t.Fatal(err)
			}
			v := &vmm{path: path}
			v.agent.Store(true)
			v.conns.Go(func() { v.accept(l.(*net.UnixListener)) })
			defer v.conns.Wait()
			defer l.Close()
			got := make([]byte, 3)
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "OK " {
				t.Errorf("%q, %v", got, err)
			}
			conn.Close()
		})
	}
}

// TestCut: connections that do not end by themselves are cut, in time.
func TestCut(t *testing.T) {
	pattern, v := vmmAt(t)
	i, err := New("pod", Options{Patterns: []listen.Pattern{{VMM: "test", Path: pattern}}, Relay: copyRelay})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { i.Serve(ctx) })
	taken(t, v.path)
	relayed, passing, silent := dial(t, v.path), dial(t, v.path), dial(t, v.path)
	if err := errors.Join(converse(relayed, "CONNECT 1024\n", "request"), converse(passing, "CONNECT 1025\n", "log")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have arrived", func() bool { return v.total.Load() == 3 })
	cancel()
	serving.Wait()
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := i.Close(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	for _, conn := range []net.Conn{relayed, passing, silent} {
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	}
}

// TestMaxConnections: what is beyond the bound waits, and the end does not.
func TestMaxConnections(t *testing.T) {
	pattern, v := vmmAt(t)
	_, stop := interposer(t, pattern, Options{MaxConnections: 2})
	taken(t, v.path)
	first, second, third := dial(t, v.path), dial(t, v.path), dial(t, v.path)
	if err := errors.Join(converse(first, "CONNECT 1024\n", "a"), converse(second, "CONNECT 1025\n", "b")); err != nil {
		t.Fatal(err)
	}
	if n := v.total.Load(); n != 2 {
		t.Errorf("the VMM has %d connections", n)
	}
	first.Close()
	if err := converse(third, "CONNECT 1024\n", "c"); err != nil {
		t.Error(err)
	}
	fourth := dial(t, v.path)
	go func() {
		// What waits when the end comes is closed with the socket.
		_, _ = fourth.Read(make([]byte, 1))
		second.Close()
		third.Close()
	}()
	stop()
}

func TestRefusesNonsense(t *testing.T) {
	for _, id := range []string{"", ".", "..", "../x", "a/b", "a\x00"} {
		if _, err := New(id, Options{Relay: copyRelay}); err == nil {
			t.Errorf("sandbox id %q is taken", id)
		}
		if err := Restore(id, listen.DefaultPatterns()); err == nil {
			t.Errorf("sandbox id %q is restored", id)
		}
	}
	if _, err := New("pod", Options{}); err == nil {
		t.Error("no relay is needed")
	}
	if err := Restore("nowhere-to-be-found", listen.DefaultPatterns()); err != nil {
		t.Error(err)
	}
}
