package explain_test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
)

// TestHealthyPods: no cause is named on ten pods without a fault. Where the machine
// itself lacked CPUs meanwhile, what that slows down may be.
func TestHealthyPods(t *testing.T) {
	s := start(t, traced.Options{})
	var pods []*pod
	busy := busyMachine(t)
	for i := range 10 {
		p := s.pod(fmt.Sprint("web-", i))
		check(t, p.start(image.Busybox))
		pods = append(pods, p)
	}
	allowed := besides
	if share := busy(); share > 0.2 {
		t.Logf("processes waited for a CPU during %.0f %% of the time", 100*share)
		allowed = also("cni", "own-shim", "mounts", "slow-disk", "shimtrace")
	}
	var all []*explain.Explanation
	for _, p := range pods {
		all = append(all, p.explained())
	}
	seeded.Healthy(t, "ten pods without a fault, by CRI", seeded.Runc, allowed, all)
	seeded.Covered(t, "containerd 2.4, runc, a pod by CRI: the least covered of ten", slices.MaxFunc(all, func(a, b *explain.Explanation) int {
		return cmp.Compare(a.Coverage.Share(), b.Coverage.Share())
	}))
	check(t, s.Rig.CRI().RemovePods(t.Context()))

	id := s.nerdctl("box")
	seeded.Covered(t, "containerd 2.4, runc, a container by nerdctl", s.explained(id, called))
	check(t, s.Rig.Nerdctl("rm", "--force", "box").Check())
}

// nerdctl starts a container and returns its id.
func (s *site) nerdctl(name string) string {
	s.Helper()
	res := s.Rig.Nerdctl("run", "--detach", "--net", "none", "--name", name, "--runtime", traced.NerdctlRuntime, image.Busybox, "sleep", "1000")
	check(s.T, res.Check())
	return res.Out()
}

// busyMachine returns a function that returns the share of the time since in which some
// process of the machine waited for a CPU.
func busyMachine(t *testing.T) func() float64 {
	waited := func() time.Duration {
		data, err := os.ReadFile("/proc/pressure/cpu")
		if err != nil {
			return 0 // the kernel does not count it
		}
		var avg10, avg60, avg300 float64
		var total int64
		if _, err := fmt.Sscanf(string(data), "some avg10=%f avg60=%f avg300=%f total=%d", &avg10, &avg60, &avg300, &total); err != nil {
			t.Fatal(err)
		}
		return time.Duration(total) * time.Microsecond
	}
	before, at := waited(), time.Now()
	return func() float64 { return float64(waited()-before) / float64(time.Since(at)) }
}
