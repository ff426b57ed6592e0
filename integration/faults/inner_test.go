package faults_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestInnerShims has real shims hang (for longer than a relay may) and be slow, and one
// that fails, is slow and hangs by itself: that is theirs, and nobody takes it for the
// relay's.
func TestInnerShims(t *testing.T) {
	hang := 12 * time.Second // relays that hang are replaced after 5
	for i, tt := range []struct {
		fault string
		do    func(s *site, l *faults.Load)
	}{
		{"the real shims hang for 12 s (SIGSTOP)", func(s *site, l *faults.Load) {
			resume := s.stopShims()
			defer resume()
			time.Sleep(hang)
		}},
		{"the real shims are slow: stopped for 80 ms in every 100", func(s *site, l *faults.Load) {
			for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
				resume := s.stopShims()
				time.Sleep(80 * time.Millisecond)
				resume()
				time.Sleep(20 * time.Millisecond)
			}
		}},
		{"a real shim fails calls, answers late, and not at all until the caller gives up", func(s *site, l *faults.Load) {
			for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
				l.Misbehave()
			}
		}},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			selected(t, i)
			s := start(t, traced.Options{})
			l := faults.Start(t, s.Install, faults.Options{Pods: 2, Execs: 1, Echo: true, Excused: containerdGaveUp})
			before := s.podsRelays()
			tt.do(s, l)
			work(t, l, 50)
			if now := s.podsRelays(); !slices.Equal(now, before) {
				t.Errorf("relays %v before, %v now", before, now)
			}
			row := s.finish(l)
			if row.CallsFailed > 0 || len(row.Lost) > 0 {
				t.Errorf("%d calls failed, spans lost %v", row.CallsFailed, row.Lost)
			}
			reliability.Row(t, reliability.Fault{Area: area, Fault: tt.fault, Load: row})
		})
	}
}

// containerdGaveUp is for shims that do not answer: containerd waits for some calls for
// a few seconds only.
func containerdGaveUp(err error) bool {
	return strings.Contains(err.Error(), "context deadline exceeded")
}

// stopShims stops the real shims, and returns how to let them go on.
func (s *site) stopShims() (resume func()) {
	s.Helper()
	var stopped []int
	for _, p := range s.Rig.Shims() {
		base, last := filepath.Base(p.Args[0]), p.Args[len(p.Args)-1]
		if (base == "containerd-shim-runc-v2" || base == "containerd-shim-echo-v2") && last != "start" && last != "delete" {
			if unix.Kill(p.PID, unix.SIGSTOP) == nil {
				stopped = append(stopped, p.PID)
			}
		}
	}
	return func() {
		for _, pid := range stopped {
			_ = unix.Kill(pid, unix.SIGCONT) // it may have ended
		}
	}
}
