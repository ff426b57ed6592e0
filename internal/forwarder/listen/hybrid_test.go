package listen

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// hybrid listens for the sandbox "pod" at patterns below dir until the test ends,
// or until stop.
func hybrid(t *testing.T, opts HybridOptions) (arrived chan arrival, stop func()) {
	t.Helper()
	arrived = make(chan arrival, 16)
	if opts.Warn == nil {
		opts.Warn = func(err error) { t.Log("warning:", err) }
	}
	h, err := NewHybrid("pod", opts, func(conn Conn, from Origin) {
		t.Cleanup(func() { conn.Close() })
		arrived <- arrival{conn, from}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { h.Serve(ctx) })
	stop = func() {
		cancel()
		serving.Wait()
	}
	t.Cleanup(stop)
	return arrived, stop
}

// at returns a path below its own directory.
func at(t *testing.T, rest string) (HybridOptions, string) {
	pattern := filepath.Join(t.TempDir(), rest)
	return HybridOptions{Patterns: []Pattern{{VMM: "test", Path: pattern}}},
		strings.ReplaceAll(pattern, placeholder, "pod") + "_10240"
}

// vmm connects as a VMM does. It gives up only when nothing is there.
func vmm(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	var conn net.Conn
	eventually(t, "a socket at "+path, func() bool {
		var err error
		conn, err = net.Dial("unix", path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal("the socket is there and refuses: ", err)
		}
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestHybridDirectoryLater(t *testing.T) {
	opts, path := at(t, "vc/vm/{sandbox}/deep/clh.sock")
	arrived, stop := hybrid(t, opts)
	mkdir(t, filepath.Dir(path))
	began := time.Now()
	conn := vmm(t, path)
	t.Logf("listens %v after the directory has appeared", time.Since(began).Round(100*time.Microsecond))
	a := await(t, arrived)
	if want := (Origin{Sandbox: "pod", Path: path}); a.from != want {
		t.Errorf("comes from %+v, not %+v", a.from, want)
	}
	a.carries(t, conn, "spans")
	st, err := os.Lstat(path)
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket is %v, %v", st.Mode(), err)
	}
	stop()
	if names := entries(t, filepath.Dir(path)); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	a.carries(t, conn, "of a connection that outlives its listener")
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// TestHybridDirectoryBefore also has several patterns, of which one is used.
func TestHybridDirectoryBefore(t *testing.T) {
	opts, path := at(t, "kata/{sandbox}/ch-vm.sock")
	mkdir(t, filepath.Dir(path))
	other := filepath.Join(filepath.Dir(path), "vsock.sock")
	opts.Patterns = append(opts.Patterns, Pattern{VMM: "other", Path: strings.ReplaceAll(other, "/pod/", "/{sandbox}/")})
	arrived, _ := hybrid(t, opts)
	for _, p := range []string{path, other + "_10240"} {
		conn := vmm(t, p)
		a := await(t, arrived)
		if a.from.Path != p {
			t.Errorf("comes from %+v, not %s", a.from, p)
		}
		a.carries(t, conn, "spans")
	}
}

// unhurried is the pace when nothing is expected any more.
func unhurried() *vmmdir.Pace {
	p := vmmdir.NewPace(0)
	p.Idle = 20 * time.Millisecond
	p.Settle()
	return p
}

// TestHybridDirectoryComesBack: also when nothing is expected any more.
func TestHybridDirectoryComesBack(t *testing.T) {
	for name, pace := range map[string]*vmmdir.Pace{"expected": vmmdir.NewPace(0), "late": unhurried()} {
		t.Run(name, func(t *testing.T) {
			opts, path := at(t, "vm/{sandbox}/clh.sock")
			opts.Pace = pace
			arrived, _ := hybrid(t, opts)
			for range 3 {
				mkdir(t, filepath.Dir(path))
				conn := vmm(t, path)
				await(t, arrived).carries(t, conn, "spans")
				if err := os.RemoveAll(filepath.Dir(filepath.Dir(path))); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// hybridRole is a relay process: PATTERN.
func hybridRole(args []string) error {
	h, err := NewHybrid("pod", HybridOptions{Patterns: []Pattern{{VMM: "test", Path: args[0]}}}, func(c Conn, _ Origin) { c.Close() })
	if err != nil {
		return err
	}
	h.Serve(context.Background())
	return nil
}

// TestHybridRelayRestarted: a relay that was killed leaves its socket, which the
// next one replaces.
func TestHybridRelayRestarted(t *testing.T) {
	opts, path := at(t, "vm/{sandbox}/clh.sock")
	mkdir(t, filepath.Dir(path))
	c := start(t, nil, "hybrid", opts.Patterns[0].Path)
	vmm(t, path)
	c.Kill()
	if _, err := net.Dial("unix", path); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("no stale socket to replace: %v", err)
	}
	arrived, _ := hybrid(t, opts)
	var conn net.Conn
	eventually(t, "the socket is replaced", func() (ok bool) {
		var err error
		conn, err = net.Dial("unix", path)
		return err == nil
	})
	defer conn.Close()
	await(t, arrived).carries(t, conn.(*net.UnixConn), "spans")
}

// TestHybridLeavesOthersAlone: only our own dead socket is removed, and the path is used
// once it is free.
func TestHybridLeavesOthersAlone(t *testing.T) {
	listener := func(t *testing.T, path string) func() {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		return func() { l.Close() }
	}
	for name, c := range map[string]struct {
		put  func(t *testing.T, path string) (free func())
		says string
	}{
		"a living socket": {listener, "another forwarder"},
		"a file": {func(t *testing.T, path string) func() {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			return func() { os.Remove(path) }
		}, "no socket"},
		"a link to a dead socket": {func(t *testing.T, path string) func() {
			if err := os.Symlink("elsewhere", path); err != nil {
				t.Fatal(err)
			}
			return func() { os.Remove(path) }
		}, "no socket"},
		"another user's dead socket": {func(t *testing.T, path string) func() {
			needRoot(t)
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
			if err := os.Chown(path, nobody, nobody); err != nil {
				t.Fatal(err)
			}
			return func() { os.Remove(path) }
		}, "user 65534"},
	} {
		t.Run(name, func(t *testing.T) {
			opts, path := at(t, "vm/{sandbox}/clh.sock")
			warned := make(chan error, 100)
			opts.Warn = func(err error) { warned <- err }
			mkdir(t, filepath.Dir(path))
			free := c.put(t, path)
			before, _ := os.Lstat(path)
			arrived, stop := hybrid(t, opts)
			select {
			case err := <-warned:
				if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
					t.Errorf("warns %q", err)
				}
			case <-time.After(patience):
				t.Fatal("nobody is warned")
			}
			if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
				t.Error("it has been replaced")
			}
			if names := entries(t, filepath.Dir(path)); len(names) != 1 {
				t.Errorf("beside it: %v", names)
			}
			free()
			conn := vmm(t, path)
			await(t, arrived).carries(t, conn, "spans")
			if len(warned) != 0 {
				t.Errorf("warned again: %v", <-warned)
			}

			// At our end the file that has replaced ours stays.
			os.Remove(path)
			if name == "a file" {
				c.put(t, path)
				stop()
				if _, err := os.Lstat(path); err != nil {
					t.Error("the file that took our place was removed: ", err)
				}
			}
		})
	}
}

// TestHybridUsers: a VMM may run as its directory's owner, and no other user may connect,
// even if the socket's mode allows it.
func TestHybridUsers(t *testing.T) {
	needRoot(t)
	const stranger, friend = 12345, 12346
	opts, path := at(t, "firecracker/{sandbox}/root/kata.hvsock")
	dir := filepath.Dir(path)
	mkdir(t, dir)
	openUp(t, dir)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	opts.Users = []uint32{friend}
	arrived, _ := hybrid(t, opts)
	vmm(t, path) // root
	await(t, arrived)

	// The jailer gives the directory to the VMM's user.
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	eventually(t, "the socket is the owner's", func() bool {
		return unix.Lstat(path, &st) == nil && st.Uid == nobody && st.Gid == nobody
	})
	if st.Mode&0o777 != 0o600 {
		t.Errorf("mode %o", st.Mode)
	}
	c := start(t, asUser(nobody), "connect", "unix", path)
	c.ExpectPrefix("connected")
	await(t, arrived)

	c = start(t, asUser(stranger), "connect", "unix", path)
	c.ExpectPrefix("refused")
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	c = start(t, asUser(stranger), "connect", "unix", path)
	c.ExpectPrefix("connected")
	c.ExpectPrefix("read 0")
	c = start(t, asUser(friend), "connect", "unix", path)
	c.ExpectPrefix("connected")
	a := await(t, arrived)
	b := make([]byte, 1)
	if _, err := io.ReadFull(a.conn, b); err != nil || b[0] != 'h' {
		t.Errorf("read %q, %v", b, err)
	}
	if len(arrived) != 0 {
		t.Error("the stranger's connection was handed on")
	}
}

// TestHybridHostileDirectory: a directory's owner cannot make us touch other users' files
// by links.
func TestHybridHostileDirectory(t *testing.T) {
	needRoot(t)
	opts, path := at(t, "firecracker/{sandbox}/root/kata.hvsock")
	dir := filepath.Dir(path)
	precious := filepath.Join(t.TempDir(), "precious")
	mkdir(t, precious)
	mkdir(t, filepath.Dir(dir))
	if err := os.Symlink(precious, dir); err != nil {
		t.Fatal(err)
	}
	warned := make(chan error, 100)
	opts.Warn = func(err error) { warned <- err }
	_, _ = hybrid(t, opts)
	time.Sleep(100 * time.Millisecond) // some attempts
	if names := entries(t, precious); len(names) != 0 {
		t.Errorf("a link was followed: %v", names)
	}
	// If the owner may not write to the directory, neither may we. The directory appears
	// with its final mode, since we watch it.
	made := dir + ".made"
	if err := errors.Join(os.Mkdir(made, 0o555), os.Chown(made, nobody, nobody), os.Remove(dir), os.Rename(made, dir)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-warned:
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("warns %v", err)
		}
	case <-time.After(patience):
		t.Fatal("root's rights were used in another user's directory")
	}
}

// TestHybridLongPath: sun_path has 108 bytes, a path may have more.
func TestHybridLongPath(t *testing.T) {
	opts, path := at(t, strings.Repeat("long/", 30)+"{sandbox}/clh.sock")
	mkdir(t, filepath.Dir(path))
	arrived, stop := hybrid(t, opts)
	dir, err := vmmdir.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	eventually(t, "the socket", func() bool {
		_, err := os.Lstat(path)
		return err == nil
	})
	err = dir.Inside(func() error {
		conn, err := net.Dial("unix", filepath.Base(path))
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, arrived)
	stop()
	if names := entries(t, filepath.Dir(path)); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestHybridRefusesNonsense(t *testing.T) {
	handle := func(c Conn, _ Origin) { c.Close() }
	for _, id := range []string{"", ".", "..", "../x", "a/b", "a\x00"} {
		if _, err := NewHybrid(id, HybridOptions{}, handle); err == nil {
			t.Errorf("sandbox id %q is taken", id)
		}
	}
	for _, path := range []string{"", "relative/{sandbox}/x", "/no/placeholder"} {
		if _, err := NewHybrid("pod", HybridOptions{Patterns: []Pattern{{VMM: "x", Path: path}}}, handle); err == nil {
			t.Errorf("pattern %q is taken", path)
		}
	}
}

// TestDefaultPatterns: with an id as containerd's CRI makes them, VMMs can connect.
func TestDefaultPatterns(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range DefaultPatterns() {
		path, err := p.listenPath(strings.Repeat("0123456789abcdef", 4))
		if err != nil {
			t.Error(err)
		}
		if seen[path] {
			t.Errorf("%s twice", path)
		}
		seen[path] = true
		// A jailed VMM's path begins at its root.
		if _, jailed, ok := strings.Cut(path, "/root/"); ok {
			path = jailed
		}
		if len(path) > 107 {
			t.Errorf("%s: %d bytes are too many for a Unix socket", path, len(path))
		}
	}
}
