package faults_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestContainerd kills containerd, and updates it twice, while containers live, start
// and end. They outlive it; calls that it has cut off are not relays' to answer.
func TestContainerd(t *testing.T) {
	for _, tt := range []struct {
		fault string
		first rig.Version
		do    func(s *site, l *faults.Load)
	}{
		{"containerd is killed five times", rig.V24, func(s *site, l *faults.Load) {
			for range 5 {
				check(s.T, s.Rig.Kill())
				check(s.T, s.Rig.Restart(s.Context()))
				work(s.T, l, 50)
			}
		}},
		{"containerd 1.6 is updated to 1.7, and that to 2.4", rig.V16, func(s *site, l *faults.Load) {
			for _, v := range []rig.Version{rig.V17, rig.V24} {
				check(s.T, s.Rig.Upgrade(s.Context(), v))
				work(s.T, l, 200)
			}
		}},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			s := start(t, traced.Options{Options: rig.Options{Version: tt.first}})
			l := faults.Start(t, s.Install, faults.Options{Pods: 2, Execs: 1, Echo: true, Excused: containerdIsAway})
			work(t, l, 50)
			tt.do(s, l)
			time.Sleep(time.Second)
			row := s.finish(l)
			s.forgetCutOff(5) // as often as containerd went
			if row.CallsFailed > 0 {
				t.Errorf("%d calls failed", row.CallsFailed)
			}
			reliability.Row(t, reliability.Fault{Area: area, Fault: tt.fault, Load: row})
		})
	}
}

// forgetCutOff removes the sockets of at most n inner shims that nobody listens at. A start that
// ends with containerd, between making its socket and its shim, leaves one; without shimtrace it
// does so as well.
func (s *site) forgetCutOff(n int) {
	sockets, _ := filepath.Glob(filepath.Join(s.Rig.Dir, "run", "containerd", "s", "*"))
	for _, at := range sockets {
		conn, err := net.Dial("unix", at)
		if err == nil {
			conn.Close()
		} else if n > 0 {
			n--
			s.Logf("nobody listens at %s: %v", at, os.Remove(at))
		}
	}
}

// containerdIsAway is for calls to a containerd that is not there or has just gone.
func containerdIsAway(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.Canceled || strings.Contains(err.Error(), "connection refused")
}
