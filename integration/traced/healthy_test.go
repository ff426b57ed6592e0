package traced_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// TestHealthy: lives without fault have no errors, by whichever client, though containerd
// and its clients ask for what is not there yet and kill what has ended; and a failure is
// one all the same.
func TestHealthy(t *testing.T) {
	each(t, traced.Options{Config: withHelpers}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		check(t, r.Ctr("run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, "by-ctr", "true").Check())
		run := func(name string, args ...string) {
			check(t, r.Nerdctl(append([]string{"run", "--net", "none", "--name", name, "--runtime", traced.NerdctlRuntime}, args...)...).Check())
		}
		run("in-front", "--rm", image.Busybox, "true")
		run("behind", "--detach", image.Busybox, "sleep", "1000")
		check(t, r.Nerdctl("exec", "behind", "true").Check())
		check(t, r.Nerdctl("rm", "--force", "behind").Check())
		pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: in.Runtime.Name, HostNetwork: true})
		check(t, err)
		a, err := pod.Run(rig.Container{Name: "a"})
		check(t, err)
		check(t, r.Crictl("exec", "--sync", a, "true").Check())
		check(t, r.Crictl("exec", a, "true").Check())
		check(t, r.Crictl("stats").Check())
		check(t, r.Crictl("stop", a).Check())
		check(t, r.Crictl("rm", a).Check())
		check(t, pod.Remove())

		if res := r.Ctr("run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, "broken", "/no/such/program"); res.Code == 0 {
			t.Error("a program that is not there ran")
		}
		settle(t, in)
		spans := settled(t, in)
		expected := 0
		for _, s := range spans {
			broken := s.Resource["shimtrace.sandbox.id"] == "broken"
			if s.Attrs["shimtrace.expected"] == true {
				expected++
			}
			if code := s.GetStatus().GetCode(); code != 0 && !broken {
				t.Errorf("%s of %v: %v, %q, %v", s.Name, s.Resource["shimtrace.sandbox.id"], code, s.Status.Message, s.Attrs)
			}
			if broken && strings.HasSuffix(s.Name, "Task/Create") && (s.Attrs["error.type"] == nil || s.Attrs["shimtrace.expected"] != nil || s.GetStatus().GetCode() == 0) {
				t.Errorf("the create that failed is no error: %v", s.Attrs)
			}
		}
		if expected < 2 {
			t.Errorf("%d failures are marked as expected; crictl exec alone makes two", expected)
		}
		errors := listErrors(t, in)
		if errors["broken"] == 0 {
			t.Error("list has no error of the container that failed")
		}
		delete(errors, "broken")
		for id, n := range errors {
			if n != 0 {
				t.Errorf("list has %d errors of %s", n, id)
			}
		}
		if len(errors) != 4 {
			t.Errorf("list has %d healthy sandboxes, want 4", len(errors))
		}
	})
}

// listErrors returns how many errors the tool lists of each sandbox.
func listErrors(t *testing.T, in *traced.Install) map[string]int {
	t.Helper()
	res := shimtrace(t, in, "list", "--json")
	check(t, res.Check())
	errors := make(map[string]int)
	for line := range strings.Lines(res.Stdout) {
		var story struct {
			Sandbox, Runtime string
			Errors           int
		}
		check(t, json.Unmarshal([]byte(line), &story))
		errors[story.Sandbox] += story.Errors
		if story.Runtime != "runc" {
			t.Errorf("the runtime of %s is %q", story.Sandbox, story.Runtime)
		}
	}
	return errors
}
