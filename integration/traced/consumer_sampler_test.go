package traced_test

import (
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// TestNothingSampled is a container of which nothing is recorded, and which does
// not notice.
func TestNothingSampled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		opts traced.Options
	}{
		{"always_off", traced.Options{Options: rig.Options{Env: []string{"OTEL_TRACES_SAMPLER=always_off"}}}},
		{"ratio", traced.Options{Config: "[trace]\nsampler = 'traceidratio'\nsampler_arg = 0.0\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.opts.Version = rig.V24
			in := traced.Start(t, tt.opts)
			res := in.Rig.CtrHearing([]string{"out"}, "run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sh", "-c", "echo out"+rig.Hear+"; exit 3")
			if res.Code != 3 || res.Out() != "out" {
				t.Errorf("the container ended with %d and %q: %v", res.Code, res.Stdout, res.Check())
			}
			if spans := settled(t, in); len(spans) > 0 {
				t.Errorf("recorded:\n%s", traced.Tree(spans))
			}
		})
	}
}
