package faults_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/shimtrace/shimtrace/integration/disk"
	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestJournals has the journal's disk fail in each way while containers live, start and
// end. Nobody notices; what could not be written is counted when the disk is well again.
func TestJournals(t *testing.T) {
	errno := func(e syscall.Errno) func() (func() fuse.Status, func()) {
		return func() (func() fuse.Status, func()) { return fails(e) }
	}
	for i, tt := range []struct {
		fault string
		how   func() (fail func() fuse.Status, heal func())
	}{
		{"the journal's disk is full", errno(syscall.ENOSPC)},
		{"the journal's disk is read-only", errno(syscall.EROFS)},
		{"the journal's disk answers EIO", errno(syscall.EIO)},
		{"the journal's disk is frozen", freezes},
		{"each write to the journal's disk takes 50 ms", slow},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			selected(t, i)
			d := disk.New(t)
			s := start(t, traced.Options{Journal: d.Dir})
			s.Journal = d.Below // for us, who must not wait for ourselves
			l := faults.Start(t, s.Install, faults.Options{Pods: 2, Execs: 1, Echo: true})
			fail, heal := tt.how()
			t.Cleanup(heal)
			d.Meet(fail)
			under(s, l, 8*time.Second)
			d.Meet(nil)
			heal()
			under(s, l, 2*time.Second)
			row := s.finish(l)
			if row.CallsFailed > 0 {
				t.Errorf("%d calls failed", row.CallsFailed)
			}
			reliability.Row(t, reliability.Fault{Area: area, Fault: tt.fault, Load: row})
		})
	}
}
