package traced_test

import (
	"regexp"
	"testing"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// selfTraced is containerd 2.4 that traces itself, and sends along which span a
// request to a shim is for.
func selfTraced(config string) traced.Options {
	return traced.Options{
		Options: rig.Options{Version: rig.V24, Env: []string{
			"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + httpAddr,
			"OTEL_BSP_SCHEDULE_DELAY=50", // milliseconds
		}},
		Config: config,
	}
}

// TestCaller is a pod whose every step is in a trace of its caller's already, which
// is the one that counts. The other way round is TestInnerShimJoins.
func TestCaller(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, config, want string }{
		{"join caller", unhurried, callerTree},
		{"sandbox not sampled", unhurried + "sampler = 'parentbased_traceidratio'\nsampler_arg = 0.0\n", podOfOneResource + calls},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := collect(t, selfTraced(tt.config))
			names := podOfOne(c)
			wantTree(t, rig.V24, tt.want, c.complete(), names...)
		})
	}
}

// podOfOne is the life of a pod with one container, and what stands for its ids.
func podOfOne(c *collected) (names []string) {
	c.Helper()
	pod, err := c.Rig.RunPod(rig.Pod{Name: "p", Runtime: c.Runtime.Name, HostNetwork: true})
	check(c.T, err)
	id, err := pod.Run(rig.Container{Name: "a"})
	check(c.T, err)
	check(c.T, pod.Remove())
	return []string{pod.ID, "POD", id, "A"}
}

const podOfOneResource = `
resource container.runtime.name=containerd host.name=HOST k8s.namespace.name=default k8s.pod.name=p k8s.pod.uid=p service.instance.id=RUN service.name=containerd-shim-runc-v2 shimtrace.containerd.namespace=k8s.io shimtrace.runtime=runc shimtrace.sandbox.id=POD
`

// callerTree has in the sandbox's trace what no caller knows of, and the calls in
// those of the callers, with a link to it.
var callerTree = podOfOneResource + `trace
  sandbox start
    container exited container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 ! container exited process.exit.code=137
    container exited container.id=POD process.exit.code=137 ! container exited process.exit.code=137
    shim delete container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID
      inner delete container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID
    shim delete container.id=POD process.exit.code=137 process.pid=PID
      inner delete container.id=POD process.exit.code=137 process.pid=PID
` + regexp.MustCompile(`(?m)^    (Task/|shim start).*`).ReplaceAllString(calls, "$0 ~ sandbox start")

const calls = `trace
  (client Task/Create of containerd)
    Task/Create server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.pid=PID
  (client Task/Start of containerd)
    Task/Start server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.pid=PID
trace
  (client Task/Create of containerd)
    Task/Create server OK container.id=POD process.pid=PID
    shim start container.id=POD
      inner start container.id=POD
      relay spawn container.id=POD
  (client Task/Start of containerd)
    Task/Start server OK container.id=POD process.pid=PID
trace
  (client Task/Delete of containerd)
    Task/Delete server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID
  (client Task/Kill of containerd)
    Task/Kill server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.signal=9
  (client Task/Shutdown of containerd)
    Task/Shutdown server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a
trace
  (client Task/Delete of containerd)
    Task/Delete server OK container.id=POD process.exit.code=137 process.pid=PID
  (client Task/Kill of containerd)
    Task/Kill server OK container.id=POD shimtrace.signal=9
  (client Task/Shutdown of containerd)
    Task/Shutdown server OK container.id=POD
trace
  (client Task/Kill of containerd)
    Task/Kill server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.signal=9
  (client Task/Kill of containerd)
    Task/Kill server OK container.id=POD shimtrace.signal=9
`

const sandboxTree = podOfOneResource + `trace
  sandbox start
    Task/Create server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.pid=PID ~ (client Task/Create of containerd)
    Task/Create server OK container.id=POD process.pid=PID ~ (client Task/Create of containerd)
    Task/Delete server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID ~ (client Task/Delete of containerd)
    Task/Delete server OK container.id=POD process.exit.code=137 process.pid=PID ~ (client Task/Delete of containerd)
    Task/Kill server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.signal=9 ~ (client Task/Kill of containerd)
    Task/Kill server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.signal=9 ~ (client Task/Kill of containerd)
    Task/Kill server OK container.id=POD shimtrace.signal=9 ~ (client Task/Kill of containerd)
    Task/Kill server OK container.id=POD shimtrace.signal=9 ~ (client Task/Kill of containerd)
    Task/Shutdown server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a ~ (client Task/Shutdown of containerd)
    Task/Shutdown server OK container.id=POD ~ (client Task/Shutdown of containerd)
    Task/Start server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.pid=PID ~ (client Task/Start of containerd)
    Task/Start server OK container.id=POD process.pid=PID ~ (client Task/Start of containerd)
    container exited container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 ! container exited process.exit.code=137
    container exited container.id=POD process.exit.code=137 ! container exited process.exit.code=137
    shim delete container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID
      inner delete container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID
    shim delete container.id=POD process.exit.code=137 process.pid=PID
      inner delete container.id=POD process.exit.code=137 process.pid=PID
    shim start container.id=POD
      inner start container.id=POD
      relay spawn container.id=POD
`
