package explain_test

import (
	"cmp"
	"fmt"
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
		watched := seeded.Watch(t)
		p := s.pod(fmt.Sprint("web-", i))
		check(t, p.start(image.Busybox))
		pods = append(pods, p)
		waited[p] = watched()
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
