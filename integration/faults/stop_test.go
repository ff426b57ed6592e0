package faults_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// stopped is how long processes are stopped.
func stopped() time.Duration {
	if faults.All() {
		return 30 * time.Second
	}
	return 10 * time.Second
}

// TestStopped stops each kind of process (SIGSTOP) for 30 s.
func TestStopped(t *testing.T) {
	for _, tt := range []struct {
		fault string
		kind  traced.Kind
	}{
		{"what ships the spans is stopped (SIGSTOP) for 30 s", traced.Collect},
		{"the guard is stopped (SIGSTOP) for 30 s", traced.Guard},
		{"all relays of running pods are stopped (SIGSTOP) for 30 s", traced.Relay},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			t.Parallel()
			s := start(t, traced.Options{})
			l := faults.Start(t, s.Install, faults.Options{Pods: 2, Execs: 1, Echo: true})
			until(t, "a process to stop", func() bool { return len(processes(s, tt.kind)) > 0 })
			pids := processes(s, tt.kind)
			if tt.kind == traced.Relay {
				pids = s.podsRelays()
			}
			for _, pid := range pids {
				check(t, unix.Kill(pid, unix.SIGSTOP))
				defer unix.Kill(pid, unix.SIGCONT)
			}
			under(s, l, stopped())
			row := s.finish(l)
			if row.CallsFailed > 0 {
				t.Errorf("%d calls failed", row.CallsFailed)
			}
			reliability.Row(t, reliability.Fault{Area: area, Fault: tt.fault, Load: row})
		})
	}
}
