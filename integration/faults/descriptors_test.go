package faults_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestDescriptorsExhausted lets each kind of process open nothing more for some
// seconds.
func TestDescriptorsExhausted(t *testing.T) {
	for i, tt := range []struct {
		fault string
		kind  traced.Kind
	}{
		{"relays can open no more files", traced.Relay},
		{"what ships the spans can open no more files", traced.Collect},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			selected(t, i)
			s := start(t, traced.Options{})
			l := faults.Start(t, s.Install, faults.Options{Pods: 2, Execs: 1, Echo: true})
			until(t, "a process to exhaust", func() bool { return len(processes(s, tt.kind)) > 0 })
			limits := map[int]unix.Rlimit{}
			for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
				pids := processes(s, tt.kind) // those that start meanwhile, too
				if tt.kind == traced.Relay {
					pids = s.podsRelays() // without which one starts is not traced
				}
				for _, pid := range pids {
					if _, done := limits[pid]; !done {
						if limit, err := exhaust(pid); err == nil {
							limits[pid] = limit
						}
					}
				}
				work(t, l, 1)
				time.Sleep(20 * time.Millisecond)
			}
			for pid, limit := range limits {
				_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil) // it may have ended
			}
			row := s.finish(l)
			if row.CallsFailed > 0 {
				t.Errorf("%d calls failed", row.CallsFailed)
			}
			reliability.Row(t, reliability.Fault{Area: area, Fault: tt.fault, Load: row})
		})
	}
}

// exhaust limits a process to the descriptors that it has, and returns its limit.
func exhaust(pid int) (before unix.Rlimit, err error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return before, err
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		return before, err
	}
	// Lower than the highest descriptor: there may be gaps below it.
	return before, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(min(len(entries), 3)), Max: before.Max}, nil)
}
