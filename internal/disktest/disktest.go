// Package disktest provides failing file systems for tests: real ones, which need root.
package disktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Root skips a test that may not mount, and fails it in CI.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs root, to mount file systems")
	}
	t.Skip("mounting file systems needs root")
}

// Ext4 mounts a new ext4. freeze blocks every write until thaw, as fsfreeze(8) and
// snapshots do; not even a signal interrupts them. Both may be repeated. The test's end
// thaws it.
func Ext4(t testing.TB) (dir string, freeze, thaw func()) {
	t.Helper()
	Root(t)
	dir = filepath.Join(t.TempDir(), "ext4")
	image := dir + ".img"
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	run("mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=1", image)
	run("mount", "-o", "loop", image, dir)
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	const fifreeze, fithaw = 0xc0045877, 0xc0045878 // linux/fs.h
	var frozen bool
	turn := func(request uint, to bool) func() {
		return func() {
			t.Helper()
			if frozen == to {
				return
			}
			if err := unix.IoctlSetInt(int(d.Fd()), request, 0); err != nil {
				t.Fatalf("freeze or thaw %s: %v", dir, err)
			}
			frozen = to
		}
	}
	freeze, thaw = turn(fifreeze, true), turn(fithaw, false)
	t.Cleanup(func() {
		thaw()
		d.Close()
		// A process stopped in a call may still have it open.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir, freeze, thaw
}

// Fail makes an ext4 answer everything with EIO from now on, as if its disk were gone.
func Fail(t testing.TB, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const shutdown, noLogFlush = 0x8004587d, 2 // fs/ext4/ext4.h, EXT4_IOC_SHUTDOWN
	if err := unix.IoctlSetPointerInt(int(d.Fd()), shutdown, noLogFlush); err != nil {
		t.Fatalf("shut down %s: %v", dir, err)
	}
}

// Hung mounts a file system on which no call returns, not even stat(2), as on a network
// file system without its server. release makes all calls fail from then on; the test's
// end calls it too.
func Hung(t testing.TB) (dir string, release func()) {
	t.Helper()
	Root(t)
	dir = filepath.Join(t.TempDir(), "hung")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// A FUSE whose server never reads a request.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) && os.Getenv("CI") == "" {
		t.Skip("there is no /dev/fuse")
	}
	if err == nil {
		err = unix.Mount("hung", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd))
	}
	if err != nil {
		t.Fatalf("mount a FUSE: %v", err)
	}
	release = sync.OnceFunc(func() { unix.Close(fd) })
	t.Cleanup(func() {
		release()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir, release
}

// Full mounts a tmpfs of the given size, such as "64k".
func Full(t testing.TB, size string) (dir string) { return tmpfs(t, "size="+size) }

// ReadOnly mounts a read-only tmpfs.
func ReadOnly(t testing.TB) (dir string) { return tmpfs(t, "ro") }

func tmpfs(t testing.TB, options ...string) (dir string) {
	t.Helper()
	Root(t)
	dir = filepath.Join(t.TempDir(), "tmpfs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var flags uintptr
	if options[0] == "ro" {
		flags, options = unix.MS_RDONLY, nil
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, strings.Join(append(options, "mode=0700"), ",")); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}
