package backends

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// TestTailSampling runs a real Collector with the chart's configuration of the sampler, and
// one behind it that writes to a file: traces with a failure arrive whole, and no others.
func TestTailSampling(t *testing.T) {
	program := filepath.Join(toolset.Collector.Dir(needed(t, toolset.Collector)), "otelcol")
	rendered, dir := t.TempDir(), t.TempDir()
	cmd := exec.Command("go", "-C", "../../deploy", "test", "-count=1", "-run", "TestCollectorConfigurations", ".")
	cmd.Env = append(os.Environ(), "SHIMTRACE_RENDER="+rendered,
		"SHIMTRACE_VALUES=collector: {enabled: true, endpoint: '127.0.0.1:5317', tailSampling: {wait: 2s, slow: 3600s, percentage: 0}}")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := start(t)
	all := s.run()
	failed := make(map[string]bool) // traces
	for _, w := range all {
		if w.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
			failed[w.TraceID] = true
		}
	}
	var want []otlprecv.Span
	for _, w := range all {
		if failed[w.TraceID] {
			want = append(want, w)
		}
	}
	if len(want) == 0 || len(want) == len(all) {
		t.Fatalf("%d of %d spans are in traces with a failure: too few to compare", len(want), len(all))
	}
	s.serve(func() bool { return s.listens("127.0.0.1:5317") }, program, "--config", collectorConfig(t, dir, []pipe{{"kept", "grpc", 5317, ""}}))
	s.serve(func() bool { return s.listens("127.0.0.1:4317") }, program, "--config", filepath.Join(rendered, "sampler.yaml"),
		"--config", write(t, "quiet.yaml", "service: {telemetry: {metrics: {level: none}}}\n"))
	s.ship(t, "sampler", fmt.Sprintf("endpoint = %q\nprotocol = %q\n", "http://127.0.0.1:4317", "grpc"))
	same(t, want, received(t, filepath.Join(dir, "keptgrpc"), len(want)))
}
