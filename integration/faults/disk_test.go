package faults_test

import (
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// What a disk can meet (disk.Disk.Meet), and how it gets well.

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
