// Package disk provides a file system for tests that fails or is slow on demand.
//
// It is served by the test's own process (FUSE), so that nothing of it is left when that
// ends, however it ends. A real one that can be frozen is in internal/disktest.
package disk

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

// A Disk is a mounted file system. What is on it lies in a directory that never fails.
type Disk struct {
	fuse.RawFileSystem
	Dir   string // where it is mounted
	Below string // what it shows

	mu   sync.Mutex
	fail func() fuse.Status // what each write and each change of names meets; nil if it is well
	read time.Duration      // what a page takes that is not in the page cache
}

// New mounts one until the test's end.
func New(t testing.TB) *Disk {
	t.Helper()
	disktest.Root(t)
	d := &Disk{Dir: filepath.Join(t.TempDir(), "disk"), Below: filepath.Join(t.TempDir(), "below")}
	for _, dir := range []string{d.Dir, d.Below} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	root, err := fs.NewLoopbackRoot(d.Below)
	if err != nil {
		t.Fatal(err)
	}
	d.RawFileSystem = fs.NewNodeFS(root, &fs.Options{})
	server, err := fuse.NewServer(d, d.Dir, &fuse.MountOptions{
		Name: "disk", DirectMountStrict: true, MaxBackground: 64,
		// More than the kernel takes, so that it does not read and write the files below by
		// itself.
		MaxStackDepth: 3,
		MaxReadAhead:  os.Getpagesize(),
	})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve()
	}()
	if err := server.WaitMount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Meet(nil)
		if err := syscall.Unmount(d.Dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", d.Dir, err)
		}
		<-served
	})
	return d
}

// Meet has each write and each change of names meet a failure from now on; nil heals it.
func (d *Disk) Meet(fail func() fuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fail
}

// SlowReads has each page that is not in the page cache take so long from now on.
func (d *Disk) SlowReads(page time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read = page
}

func (d *Disk) meet() fuse.Status {
	d.mu.Lock()
	fail := d.fail
	d.mu.Unlock()
	if fail == nil {
		return fuse.OK
	}
	return fail()
}

// The operations that can be slow or fail.

func (d *Disk) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	d.mu.Lock()
	page := d.read
	d.mu.Unlock()
	pages := (len(buf) + os.Getpagesize() - 1) / os.Getpagesize()
	time.Sleep(time.Duration(pages) * page)
	return d.RawFileSystem.Read(cancel, in, buf)
}

func (d *Disk) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if st := d.meet(); st != fuse.OK {
		return 0, st
	}
	return d.RawFileSystem.Writev(cancel, in, data)
}

func (d *Disk) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if st := d.meet(); st != fuse.OK {
		return st
	}
	return d.RawFileSystem.Create(cancel, in, name, out)
}

func (d *Disk) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := d.meet(); st != fuse.OK {
		return st
	}
	return d.RawFileSystem.Mkdir(cancel, in, name, out)
}

func (d *Disk) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	if st := d.meet(); st != fuse.OK {
		return st
	}
	return d.RawFileSystem.Unlink(cancel, header, name)
}

func (d *Disk) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if st := d.meet(); st != fuse.OK {
		return st
	}
	return d.RawFileSystem.Rename(cancel, in, from, to)
}
