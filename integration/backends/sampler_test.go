package backends

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// TestTailSampling runs what the chart makes of Collectors: a node's, which passes traces on
// by their ids, and two samplers, whose addresses it looks up by a name. Each sampler sends
// to a file. Traces with a failure arrive whole, each from one sampler, and no others,
// although their spans come to the node's Collector at different times.
func TestTailSampling(t *testing.T) {
	program := filepath.Join(toolset.Collector.Dir(needed(t, toolset.Collector)), "otelcol")
	rendered, dir := t.TempDir(), t.TempDir()
	cmd := exec.Command("go", "-C", "../../deploy", "test", "-count=1", "-run", "TestCollectorConfigurations", ".")
	cmd.Env = append(os.Environ(), "SHIMTRACE_RENDER="+rendered,
		"SHIMTRACE_VALUES=collector: {enabled: true, endpoint: 'set-below:4317', tailSampling: {wait: 5s, slow: 3600s, percentage: 0}}")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := start(t)
	all := s.run()

	s.serve(func() bool { return s.listens("127.0.0.1:5318") }, program,
		"--config", collectorConfig(t, dir, []pipe{{"first", "grpc", 5317, ""}, {"second", "grpc", 5318, ""}}))
	const quiet = "service: {telemetry: {metrics: {level: none}}}\n"
	for i, address := range samplers {
		s.serve(func() bool { return s.listens(address) }, program, "--config", filepath.Join(rendered, "sampler.yaml"), "--config",
			write(t, "sampler.yaml", fmt.Sprintf("receivers: {otlp: {protocols: {grpc: {endpoint: %q}}}}\nexporters: {otlp: {endpoint: '127.0.0.1:%d'}}\n%s", address, 5317+i, quiet)))
	}
	node := filepath.Join(rendered, "agent.yaml")
	s.serve(func() bool { return s.listens("127.0.0.1:4317") }, "unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`,
		hosts(t, node), program, "--config", node, "--config", write(t, "quiet.yaml", quiet))

	all = append(all, s.sendTraces(t, 200)...)
	s.ship(t, "node", fmt.Sprintf("endpoint = %q\nprotocol = %q\n", "http://127.0.0.1:4317", "grpc"))
	want := ofFailed(all)
	if len(want) == 0 || len(want) == len(all) {
		t.Fatalf("%d of %d spans are in traces with a failure: too few to compare", len(want), len(all))
	}
	var got []otlprecv.Span
	files := []string{filepath.Join(dir, "firstgrpc"), filepath.Join(dir, "secondgrpc")}
	until(t, "the samplers to have sent all spans", func() bool {
		got = append(written(t, files[0]), written(t, files[1])...)
		return len(got) >= len(want)
	})
	same(t, want, got)
	from := make(map[string]string) // by trace
	for _, file := range files {
		traces := make(map[string]bool)
		for _, g := range written(t, file) {
			traces[g.TraceID] = true
			if other, there := from[g.TraceID]; there && other != file {
				t.Errorf("the trace %s was at two samplers", g.TraceID)
			}
			from[g.TraceID] = file
		}
		if len(traces) < 5 {
			t.Errorf("%d traces were at the sampler of %s", len(traces), file)
		}
	}
}

// samplers are the addresses of samplers' pods.
var samplers = []string{"127.0.0.2:4317", "127.0.0.3:4317"}

// hosts writes a hosts file in which the name that a node's Collector looks up has the
// addresses of the samplers.
func hosts(t *testing.T, node string) string {
	t.Helper()
	text, err := os.ReadFile(node)
	check(t, err)
	name := regexp.MustCompile(`hostname: ([a-z.-]+)`).FindSubmatch(text)
	if name == nil {
		t.Fatalf("no name to look up:\n%s", text)
	}
	return write(t, "hosts", fmt.Sprintf("127.0.0.2 %[1]s\n127.0.0.3 %[1]s\n", name[1]))
}

// ofFailed returns the spans of traces with a failure.
func ofFailed(all []otlprecv.Span) (some []otlprecv.Span) {
	failed := make(map[string]bool) // traces
	for _, s := range all {
		if s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
			failed[s.TraceID] = true
		}
	}
	for _, s := range all {
		if failed[s.TraceID] {
			some = append(some, s)
		}
	}
	return some
}

// sendTraces sends traces of three spans, a span of each trace at a time. In every fourth
// trace the last one has failed. It returns their spans.
func (s *site) sendTraces(t *testing.T, traces int) (all []otlprecv.Span) {
	t.Helper()
	dial := otlprecv.Dialer(s.Rig.NetNS())
	conn, err := grpc.NewClient("passthrough:///127.0.0.1:4317", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, "tcp", address) }))
	check(t, err)
	defer conn.Close()
	resource := &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: "service.name", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "many"}}}}}
	id := func(trace, span int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(trace*10+span+1)) }
	for i := range 3 {
		var spans []*tracepb.Span
		for trace := range traces {
			span := &tracepb.Span{
				TraceId: append(id(trace, 7), id(trace, 8)...), SpanId: id(trace, i), Name: fmt.Sprint("span ", i),
				StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18 + uint64(i), Kind: tracepb.Span_SPAN_KIND_INTERNAL,
			}
			if i > 0 {
				span.ParentSpanId = id(trace, i-1)
			}
			if i == 2 && trace%4 == 0 {
				span.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "failed"}
			}
			spans = append(spans, span)
		}
		data := []*tracepb.ResourceSpans{{Resource: resource, ScopeSpans: []*tracepb.ScopeSpans{{Scope: new(commonpb.InstrumentationScope), Spans: spans}}}}
		_, err := coltracepb.NewTraceServiceClient(conn).Export(t.Context(), &coltracepb.ExportTraceServiceRequest{ResourceSpans: data})
		check(t, err)
		all = append(all, otlprecv.Flatten(data)...)
	}
	return all
}
