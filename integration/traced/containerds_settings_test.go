package traced_test

import (
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// TestContainerdsOwnSettings: containerd 1.7.19 and later put what their configuration
// says of tracing into the environment, and so into that of shims. It is understood
// as containerd means it, and the log says that it overrides ours.
func TestContainerdsOwnSettings(t *testing.T) {
	t.Parallel()
	c := collect(t, traced.Options{
		Options: rig.Options{Version: rig.V17, TOML: `
[plugins."io.containerd.tracing.processor.v1.otlp"]
  endpoint = "0.0.0.0:4317"
  protocol = "grpc"
  insecure = true
[plugins."io.containerd.internal.v1.tracing"]
  sampling_ratio = 1.0
  service_name = "not-ours"
`},
		Config: "[trace]\nsampler = 'always_off'\n[export]\nendpoint = 'http://127.0.0.1:9'\n",
	})
	check(t, c.Rig.Ctr("run", "--rm", "--runtime", c.Runtime.Shim(), image.Busybox, "c1", "true").Check())
	until(t, "the sandbox's trace to arrive", func() bool {
		for _, span := range c.recv.Spans() {
			if span.GetName() == "sandbox start" {
				return true
			}
		}
		return false
	})
	for _, want := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT overrides export.endpoint", "OTEL_TRACES_SAMPLER overrides trace.sampler"} {
		until(t, "the log to say "+want, func() bool { return strings.Contains(c.Rig.Log(), want) })
	}
}
