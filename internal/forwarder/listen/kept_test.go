package listen

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// left is a socket that another process has bound, and a connection that waits there.
func left(t *testing.T, path string) Socket {
	t.Helper()
	var b Socket
	if _, err := bindSocketFile(path, HybridOptions{Listening: func(now Socket) { b = now }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Listener.Close() })
	return b
}

// TestHybridResumed: a socket that another process has bound is listened at as it is, and
// who waits there is accepted.
func TestHybridResumed(t *testing.T) {
	opts, path := at(t, "vm/{sandbox}/clh.sock")
	mkdir(t, filepath.Dir(path))
	b := left(t, path)
	waiting := vmm(t, path)
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan Socket, 1)
	opts.Sockets, opts.Listening, opts.Left = []Socket{b}, func(Socket) {}, func(b Socket) { gone <- b }
	arrived, stop := hybrid(t, opts)
	await(t, arrived).carries(t, waiting, "waited")
	later := vmm(t, path)
	await(t, arrived).carries(t, later, "comes later")
	if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
		t.Errorf("another socket is there: %v", err)
	}
	stop()
	if names := entries(t, filepath.Dir(path)); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	if was := await(t, gone); was.ID != b.ID {
		t.Errorf("%+v is left, not %+v", was, b)
	}
}

// TestHybridResumedWhileRemoved: the VMM's directory was being removed meanwhile, which
// nothing new hinders; who had come before is accepted.
func TestHybridResumedWhileRemoved(t *testing.T) {
	opts, path := at(t, "vm/{sandbox}/clh.sock")
	mkdir(t, filepath.Dir(path))
	b := left(t, path)
	waiting := vmm(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	gone := make(chan Socket, 1)
	opts.Sockets, opts.Left = []Socket{b}, func(b Socket) { gone <- b }
	arrived, _ := hybrid(t, opts)
	await(t, arrived).carries(t, waiting, "waited")
	await(t, gone)
	if err := os.Remove(filepath.Dir(path)); err != nil {
		t.Error(err)
	}
}

// TestHybridResumedOfAnother: what is not the sandbox's is closed, and stays where it is.
func TestHybridResumedOfAnother(t *testing.T) {
	opts, path := at(t, "vm/{sandbox}/clh.sock")
	other := filepath.Join(t.TempDir(), "vm.sock_10240")
	b := left(t, other)
	gone := make(chan Socket, 1)
	opts.Sockets, opts.Left = []Socket{b}, func(b Socket) { gone <- b }
	hybrid(t, opts)
	await(t, gone)
	if err := b.Listener.SetDeadline(time.Now()); err == nil {
		t.Error("it is open")
	}
	if _, err := os.Lstat(other); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("there is one of the sandbox")
	}
}

func TestSpotIs(t *testing.T) {
	for _, c := range []struct {
		spot, path string
		is         bool
	}{
		{"/run/kata/pod/ch-vm.sock_10240", "/run/kata/pod/ch-vm.sock_10240", true},
		{"/run/kata/pod/ch-vm.sock_10240", "/run/kata/pod2/ch-vm.sock_10240", false},
		{"/run/user/{user}/kata/pod/x", "/run/user/12/kata/pod/x", true},
		{"/run/user/{user}/kata/pod/x", "/run/user/12/34/kata/pod/x", false},
		{"/run/user/{user}/kata/pod/x", "/run/user/", false},
		{"/run/user/{user}/kata/pod/x", "/run/user/../kata/pod/x", false},
	} {
		if is := NewSpot(c.spot).is(c.path); is != c.is {
			t.Errorf("%s is %s: %v", c.path, c.spot, is)
		}
	}
}
