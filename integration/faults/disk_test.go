package faults_test

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/shimtrace/shimtrace/internal/disktest"
)

// A disk is a file system that fails on demand, and can be well again. What is on it
// lies in a directory that never fails.
type disk struct {
	fuse.RawFileSystem
	dir   string // where it is mounted
	below string // what it shows

	mu   sync.Mutex
	fail func() fuse.Status // what each write and each change of names meets; nil if it is well
}

// newDisk mounts one.
func newDisk(t testing.TB) *disk {
	t.Helper()
	disktest.Root(t)
	d := &disk{dir: filepath.Join(t.TempDir(), "disk"), below: filepath.Join(t.TempDir(), "below")}
	for _, dir := range []string{d.dir, d.below} {
		check(t, os.Mkdir(dir, 0o700))
	}
	root, err := fs.NewLoopbackRoot(d.below)
	check(t, err)
	d.RawFileSystem = fs.NewNodeFS(root, &fs.Options{})
	server, err := fuse.NewServer(d, d.dir, &fuse.MountOptions{
		Name: "disk", DirectMountStrict: true, MaxBackground: 64,
		// More than the kernel takes, so that it does not write to the files below by itself.
		MaxStackDepth: 3,
	})
	check(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve()
	}()
	check(t, server.WaitMount())
	t.Cleanup(func() {
		d.set(nil)
		if err := syscall.Unmount(d.dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", d.dir, err)
		}
		<-served
	})
	return d
}

func (d *disk) set(fail func() fuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fail
}

// fails answers everything with an error.
func fails(errno syscall.Errno) (fail func() fuse.Status, heal func()) {
	return func() fuse.Status { return fuse.ToStatus(errno) }, func() {}
}

// freezes answers nothing until it is healed.
func freezes() (fail func() fuse.Status, heal func()) {
	thawed := make(chan struct{})
	return func() fuse.Status {
		<-thawed
		return fuse.OK
	}, sync.OnceFunc(func() { close(thawed) })
}

// slow takes its time.
func slow() (fail func() fuse.Status, heal func()) {
	return func() fuse.Status {
		time.Sleep(50 * time.Millisecond)
		return fuse.OK
	}, func() {}
}

func (d *disk) meet() fuse.Status {
	d.mu.Lock()
	fail := d.fail
	d.mu.Unlock()
	if fail == nil {
		return fuse.OK
	}
	return fail()
}

func (d *disk) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if st := d.meet(); st != fuse.OK {
		return 0, st
	}
	return d.RawFileSystem.Writev(cancel, in, data)
}

func (d *disk) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if st := d.meet(); st != fuse.OK {
		return st
	}
	return d.RawFileSystem.Create(cancel, in, name, out)
}

func (d *disk) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := d.meet(); st != fuse.OK {
		return st
	}
	return d.RawFileSystem.Mkdir(cancel, in, name, out)
}

func (d *disk) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	if st := d.meet(); st != fuse.OK {
		return st
	}
	return d.RawFileSystem.Unlink(cancel, header, name)
}

func (d *disk) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if st := d.meet(); st != fuse.OK {
		return st
	}
	return d.RawFileSystem.Rename(cancel, in, from, to)
}
