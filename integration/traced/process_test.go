package traced_test

import (
	"os"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/guard"
)

func TestHelpers(t *testing.T) {
	t.Parallel()
	in := traced.Start(t, traced.Options{Options: rig.Options{Version: rig.V24}, Config: unhurried})
	r := in.Rig
	check(t, r.Nerdctl("run", "--net", "none", "--name", "box", "--detach", "--runtime", traced.NerdctlRuntime, image.Busybox, "sleep", "1000").Check())
	self, _, err := guard.Ask(t.Context(), stateDir(r))
	text, _ := os.ReadFile(stateDir(r) + "/guard.log")
	t.Log(self, err, string(text))
	check(t, r.Nerdctl("exec", "box", "true").Check())
	check(t, r.Nerdctl("rm", "--force", "box").Check())
	pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: in.Runtime.Name, HostNetwork: true})
	check(t, err)
	a, err := pod.Run(rig.Container{Name: "a"})
	check(t, err)
	check(t, r.Crictl("exec", "--sync", a, "true").Check())
	check(t, pod.Remove())
	settle(t, in)
	t.Log(traced.Tree(settled(t, in)))
}
