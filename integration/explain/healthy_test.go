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

// TestHealthyPods: no cause is named on ten pods without a fault, but for the pressure of
// a busy machine, which the test sees by the same evidence.
func TestHealthyPods(t *testing.T) {
	s := start(t, traced.Options{})
	warm := s.pod("warm") // the first one finds the page cache cold
	check(t, warm.start(image.Busybox))
	waited := make(map[*pod]time.Duration)
	var pods []*pod
	for i := range 10 {
		before := pressure(t)
		p := s.pod(fmt.Sprint("web-", i))
		check(t, p.start(image.Busybox))
		pods = append(pods, p)
		for resource, total := range pressure(t) {
			waited[p] = max(waited[p], total-before[resource])
		}
	}
	var all []*explain.Explanation
	var watched []seeded.Pod
	for _, p := range pods {
		e := p.explained()
		all, watched = append(all, e), append(watched, seeded.Pod{Explanation: e, Waited: waited[p]})
	}
	seeded.Healthy(t, "ten pods without a fault, by CRI", seeded.Runc, watched)
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

// pressure returns for how long processes of the machine have waited for each resource.
func pressure(t *testing.T) map[string]time.Duration {
	t.Helper()
	waited := make(map[string]time.Duration)
	for _, resource := range []string{"cpu", "io", "memory"} {
		data, err := os.ReadFile("/proc/pressure/" + resource)
		if err != nil {
			continue // the kernel does not count it
		}
		var avg10, avg60, avg300 float64
		var total int64
		if _, err := fmt.Sscanf(string(data), "some avg10=%f avg60=%f avg300=%f total=%d", &avg10, &avg60, &avg300, &total); err != nil {
			t.Fatal(err)
		}
		waited[resource] = time.Duration(total) * time.Microsecond
	}
	return waited
}
