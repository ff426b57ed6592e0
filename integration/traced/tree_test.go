package traced_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// unhurried takes no quiet call for slow, however busy the machine is, and leaves out
// helpers (process_test.go), of which there are as many as runc likes.
const unhurried = "[process]\nrecord = 'off'\n" + withHelpers

// withHelpers is the same with helpers.
const withHelpers = "[trace]\nslow = '1h'\n"

// ways are containerds and how shims learn of the collector. containerd 2.4 would
// trace itself if it were told by the environment; see consumer_caller_test.go.
var ways = []struct {
	name, protocol string
	opts           traced.Options
}{
	{"2.4, HTTP, configured", "http", traced.Options{
		Options: rig.Options{Version: rig.V24},
		Config:  unhurried + "[export]\nendpoint = 'http://" + httpAddr + "'\n",
	}},
	{"1.7, gRPC, by environment", "grpc", traced.Options{
		Options: rig.Options{Version: rig.V17, Env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + grpcAddr, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}},
		Config:  unhurried,
	}},
}

// TestTrees is docs/spans.md, as a collector sees it.
func TestTrees(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			c := collect(t, way.opts)
			for _, scenario := range []struct {
				name string
				play func(*collected) (names []string)
				want string
			}{
				{"ctr", ctrRun, ctrTree},
				{"nerdctl", nerdctlRun, nerdctlTree},
				{"pod", pod, podTree},
			} {
				t.Run(scenario.name, func(t *testing.T) {
					before := c.arrived()
					c := &collected{T: t, Install: c.Install, recv: c.recv}
					names := append(scenario.play(c), c.Rig.Name, "NAMESPACE")
					after := c.arrived()[len(before):]
					wantTree(t, way.opts.Version, scenario.want, after, names...)
					wantWithin(t, after)
				})
			}
			for _, r := range c.recv.Requests() {
				if r.Protocol != way.protocol {
					t.Errorf("a request came over %s, want %s", r.Protocol, way.protocol)
				}
			}
		})
	}
}

// TestTreeInJournal is the same without a collector: the journal is the store.
func TestTreeInJournal(t *testing.T) {
	t.Parallel()
	in := traced.Start(t, traced.Options{Options: rig.Options{Version: rig.V24}, Config: unhurried})
	names := ctrRun(&collected{T: t, Install: in})
	wantTree(t, rig.V24, ctrTree, settled(t, in), append(names, in.Rig.Name, "NAMESPACE")...)
}

// wantWithin checks that spans lie within their parents, where these are no more
// than the time their children took.
func wantWithin(t *testing.T, spans []otlprecv.Span) {
	t.Helper()
	for _, parent := range spans {
		for _, s := range spans {
			if s.ParentID == parent.ID && parent.Name != "sandbox start" && (s.Start().Before(parent.Start()) || s.End().After(parent.End())) {
				t.Errorf("%s, %v to %v, is not within %s, %v to %v", s.Name, s.Start(), s.End(), parent.Name, parent.Start(), parent.End())
			}
		}
	}
	for _, s := range spans {
		if s.End().Before(s.Start()) {
			t.Errorf("%s ends before it starts", s.Name)
		}
	}
}

// waitForRoot waits until the sandbox's root span can be read.
func (c *collected) waitForRoot(sandbox string) {
	c.Helper()
	is := func(s otlprecv.Span) bool {
		return s.Name == "sandbox start" && s.Resource["shimtrace.sandbox.id"] == sandbox
	}
	until(c.T, "the root of sandbox "+sandbox, func() bool {
		spans, err := c.Spans()
		check(c.T, err)
		return slices.ContainsFunc(spans, is)
	})
	if c.recv != nil {
		_, err := c.recv.Wait(time.Minute, func(spans []otlprecv.Span) bool { return slices.ContainsFunc(spans, is) })
		check(c.T, err)
	}
}

// ctrRun is a container in which an exec is looked for that is not there. (An exec
// of ctr races for its standard input, which it closes sometimes.)
func ctrRun(c *collected) []string {
	r := c.Rig
	check(c.T, r.Ctr("run", "--detach", "--runtime", c.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
	c.waitForRoot("box") // while it runs
	if res := r.Ctr("tasks", "kill", "--exec-id", "none", "box"); res.Code == 0 {
		c.Error("killed an exec that is not there")
	}
	check(c.T, r.Ctr("tasks", "delete", "--force", "box").Check())
	check(c.T, r.Ctr("containers", "delete", "box").Check())
	return nil
}

const ctrTree = `
resource container.runtime.name=containerd host.name=HOST service.instance.id=RUN service.name=containerd-shim-runc-v2 shimtrace.containerd.namespace=NAMESPACE shimtrace.runtime=runc shimtrace.sandbox.id=box
trace
  sandbox start
    Task/Create server OK container.id=box process.pid=PID
    Task/Delete server OK container.id=box process.exit.code=137 process.pid=PID
    Task/Kill server OK container.id=box shimtrace.signal=9
    Task/Shutdown server OK container.id=box
    Task/Start server OK container.id=box process.pid=PID
    Task/State server NOT_FOUND container.id=box error.type=NOT_FOUND shimtrace.exec.id=EXEC1 status="process does not exist none: not found"
    container exited container.id=box process.exit.code=137 ! container exited process.exit.code=137
    shim delete container.id=box process.exit.code=137 process.pid=PID
      inner delete container.id=box process.exit.code=137 process.pid=PID
    shim start container.id=box
      inner start container.id=box
      relay spawn container.id=box
`

// nerdctlRun is a container that ends when it is told to.
func nerdctlRun(c *collected) []string {
	r := c.Rig
	res := r.Nerdctl(append([]string{"run", "--detach", "--net", "none", "--name", "web", "--runtime", traced.NerdctlRuntime, image.Busybox}, stoppable...)...)
	check(c.T, res.Check())
	id := res.Out()
	c.waitForRoot(id)
	until(c.T, "the container to be up", func() bool { return strings.Contains(r.Nerdctl("logs", "web").Stdout, "up") })
	if res := r.Nerdctl("exec", "web", "sh", "-c", "exit 5"); !strings.Contains(res.Stderr, "exit code 5") {
		c.Errorf("exec ended with %q", res.Stderr)
	}
	check(c.T, r.Nerdctl("stop", "web").Check())
	check(c.T, r.Nerdctl("rm", "web").Check())
	return []string{id, "WEB"}
}

// runc's shim of 1.7 answers its delete with the status of a kill, whatever the
// container's was.
const nerdctlTree = `
resource container.runtime.name=containerd host.name=HOST service.instance.id=RUN service.name=containerd-shim-runc-v2 shimtrace.containerd.namespace=NAMESPACE shimtrace.runtime=runc shimtrace.sandbox.id=WEB
trace
  sandbox start
    Task/Create server OK container.id=WEB container.name=web process.pid=PID
    Task/Delete server OK container.id=WEB container.name=web process.exit.code=0 process.pid=PID
    Task/Delete server OK container.id=WEB container.name=web process.exit.code=5 process.pid=PID shimtrace.exec.id=EXEC1
    Task/Exec server OK container.id=WEB container.name=web shimtrace.exec.id=EXEC1
    Task/Kill server OK container.id=WEB container.name=web shimtrace.signal=15
    Task/Shutdown server OK container.id=WEB container.name=web
    Task/Start server OK container.id=WEB container.name=web process.pid=PID
    Task/Start server OK container.id=WEB container.name=web process.pid=PID shimtrace.exec.id=EXEC1
    container exited container.id=WEB container.name=web process.exit.code=0 ! container exited process.exit.code=0
    exec exited container.id=WEB container.name=web process.exit.code=5 shimtrace.exec.id=EXEC1 ! exec exited process.exit.code=5
2.4|    shim delete container.id=WEB container.name=web process.exit.code=0 process.pid=PID
2.4|      inner delete container.id=WEB container.name=web process.exit.code=0 process.pid=PID
1.7|    shim delete container.id=WEB container.name=web process.exit.code=137 process.pid=PID
1.7|      inner delete container.id=WEB container.name=web process.exit.code=137 process.pid=PID
    shim start container.id=WEB container.name=web
      inner start container.id=WEB container.name=web
      relay spawn container.id=WEB container.name=web
`

// pod is a pod with two containers, of which one is stopped and removed by itself.
func pod(c *collected) []string {
	r := c.Rig
	pod, err := r.RunPod(rig.Pod{Name: "web-0", Namespace: "shop", UID: "u-1", Runtime: c.Runtime.Name, HostNetwork: true})
	check(c.T, err)
	c.waitForRoot(pod.ID)
	a, err := pod.Run(rig.Container{Name: "a", Command: stoppable})
	check(c.T, err)
	b, err := pod.Run(rig.Container{Name: "b"})
	check(c.T, err)
	until(c.T, "the container to be up", func() bool {
		log, _ := pod.Log("a")
		return strings.Contains(log, "up")
	})
	if res := r.Crictl("exec", "--sync", a, "sh", "-c", "exit 5"); !strings.Contains(res.Stderr, "exited with 5") {
		c.Errorf("exec ended with %q", res.Stderr)
	}
	check(c.T, r.Crictl("stop", "--timeout", "60", a).Check())
	check(c.T, r.Crictl("rm", a).Check())
	check(c.T, pod.Remove())
	return []string{pod.ID, "POD", a, "A", b, "B"}
}

// containerd 2.4 starts further containers of a pod without their shim's start.
// CRI kills what it deletes.
const podTree = `
resource container.runtime.name=containerd host.name=HOST k8s.namespace.name=shop k8s.pod.name=web-0 k8s.pod.uid=u-1 service.instance.id=RUN service.name=containerd-shim-runc-v2 shimtrace.containerd.namespace=k8s.io shimtrace.runtime=runc shimtrace.sandbox.id=POD
trace
  sandbox start
    Task/Create server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.pid=PID
    Task/Create server OK container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b process.pid=PID
    Task/Create server OK container.id=POD process.pid=PID
    Task/Delete server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=0 process.pid=PID
    Task/Delete server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=5 process.pid=PID shimtrace.exec.id=EXEC1
    Task/Delete server OK container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b process.exit.code=137 process.pid=PID
    Task/Delete server OK container.id=POD process.exit.code=137 process.pid=PID
    Task/Exec server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.exec.id=EXEC1
    Task/Kill server NOT_FOUND container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.exec.id=EXEC1 shimtrace.expected=true shimtrace.expected.message=process already finished: not found shimtrace.signal=9
    Task/Kill server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.signal=15
    Task/Kill server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.signal=9
    Task/Kill server OK container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b shimtrace.signal=9
    Task/Kill server OK container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b shimtrace.signal=9
    Task/Kill server OK container.id=POD shimtrace.signal=9
    Task/Kill server OK container.id=POD shimtrace.signal=9
    Task/Shutdown server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a
    Task/Shutdown server OK container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b
    Task/Shutdown server OK container.id=POD
    Task/Start server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.pid=PID
    Task/Start server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.pid=PID shimtrace.exec.id=EXEC1
    Task/Start server OK container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b process.pid=PID
    Task/Start server OK container.id=POD process.pid=PID
    container exited container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=0 ! container exited process.exit.code=0
    container exited container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b process.exit.code=137 ! container exited process.exit.code=137
    container exited container.id=POD process.exit.code=137 ! container exited process.exit.code=137
    exec exited container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=5 shimtrace.exec.id=EXEC1 ! exec exited process.exit.code=5
2.4|    shim delete container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=0 process.pid=PID
2.4|      inner delete container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=0 process.pid=PID
1.7|    shim delete container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID
1.7|      inner delete container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID
    shim delete container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b process.exit.code=137 process.pid=PID
      inner delete container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b process.exit.code=137 process.pid=PID
    shim delete container.id=POD process.exit.code=137 process.pid=PID
      inner delete container.id=POD process.exit.code=137 process.pid=PID
1.7|    shim start container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a
1.7|      inner start container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a
1.7|    shim start container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b
1.7|      inner start container.id=B container.image.name=IMAGE container.name=b k8s.container.name=b
    shim start container.id=POD
      inner start container.id=POD
      relay spawn container.id=POD
`
