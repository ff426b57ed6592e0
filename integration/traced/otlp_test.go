package traced_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/export/journal"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// otlpConfig makes shimtrace the OTLP endpoint of a rig.
const otlpConfig = "[otlp]\nlisten = ['unix:/run/shimtrace/otlp.sock', '" + grpcAddr + "', '" + httpAddr + "']\n"

// endpoint is a rig whose shimtrace is the OTLP endpoint.
type endpoint struct {
	*testing.T
	*traced.Install
}

// startEndpoint starts a rig, and shimtrace collect in it as a service of the host
// would. It returns when containerd's spans arrive.
func startEndpoint(t *testing.T, opts traced.Options) *endpoint {
	t.Helper()
	opts.Config += otlpConfig
	opts.Env = append(opts.Env, "OTEL_BSP_SCHEDULE_DELAY=50")
	e := &endpoint{T: t, Install: traced.Start(t, opts)}
	e.Serve(t)
	until(t, "containerd's spans to arrive", func() bool {
		check(t, e.Rig.Ctr("version").Check())
		_, posted := e.spans()
		for _, s := range posted {
			if s.Service() == "containerd" {
				return true
			}
		}
		return false
	})
	return e
}

// spans returns our own spans in the journal, and those of others.
func (e *endpoint) spans() (ours, posted []otlprecv.Span) {
	e.Helper()
	_, err := journal.Scan(e.Journal, func(r journal.Record) error {
		if !r.Kind.Traces() {
			d, err := r.Drops()
			if err == nil && len(d) > 0 {
				err = fmt.Errorf("spans are lost: %v", d)
			}
			return err
		}
		td, err := r.Traces()
		if r.Kind == journal.KindPosted {
			posted = append(posted, otlprecv.Flatten(td.GetResourceSpans())...)
		} else {
			ours = append(ours, otlprecv.Flatten(td.GetResourceSpans())...)
		}
		return err
	})
	check(e.T, err)
	return ours, posted
}

// show returns what shimtrace show prints.
func (e *endpoint) show(args ...string) string {
	e.Helper()
	cmd := exec.Command(filepath.Join(e.Bin, "shimtrace"), append([]string{"show"}, args...)...)
	cmd.Env = append(os.Environ(), "SHIMTRACE_CONFIG="+e.Config)
	out, err := cmd.Output()
	check(e.T, err)
	return string(out)
}

// chain returns the names and services from a root down to a span.
func chain(all []otlprecv.Span, s otlprecv.Span) (names []string) {
	byID := make(map[string]otlprecv.Span)
	for _, s := range all {
		byID[s.TraceID+s.ID] = s
	}
	for ok := true; ok; s, ok = byID[s.TraceID+s.ParentID] {
		service := s.Service()
		if strings.HasPrefix(service, "containerd-shim-") && !strings.HasPrefix(s.Scope, "github.com/shimtrace/") {
			service = "runc's shim"
		}
		names = append([]string{service + ": " + s.Name[strings.LastIndexAny(s.Name, "/.")+1:]}, names...)
	}
	return names
}

// TestEverybodysSpans: crictl, containerd and runc's shim trace themselves, and send that
// to us. There is one picture of it all, with no collector.
func TestEverybodysSpans(t *testing.T) {
	t.Parallel()
	e := startEndpoint(t, traced.Options{
		Options: rig.Options{
			Version: rig.V24, CrictlArgs: []string{"--enable-tracing"}, // to its default, 127.0.0.1:4317
			Env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + grpcAddr, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"},
		},
		Config: unhurried + "[runtime.runc]\nshim = '" + tracingShim(t) + "'\n",
	})
	pod, err := e.Rig.RunPod(rig.Pod{Name: "p", Runtime: e.Runtime.Name, HostNetwork: true})
	check(t, err)
	_, err = pod.Run(rig.Container{Name: "a"})
	check(t, err)
	check(t, pod.Remove())
	want := []string{"cri-tools: RunPodSandbox", "containerd: RunPodSandbox", "containerd-shim-runc-v2: Create", "runc's shim: Create"}
	var got []string
	until(t, "all spans to arrive", func() bool {
		ours, posted := e.spans()
		all := append(ours, posted...)
		for _, s := range posted {
			if s.Kind != tracepb.Span_SPAN_KIND_SERVER || !strings.HasSuffix(s.Name, "Task/Create") {
				continue
			}
			got = chain(all, s)
			rest := want
			for _, name := range got {
				if len(rest) > 0 && name == rest[0] {
					rest = rest[1:]
				}
			}
			if len(rest) == 0 {
				return true
			}
		}
		return false
	})
	// The container's start came after that, and from two programs.
	picture := ""
	until(t, "all of it to be in the picture", func() bool {
		picture = e.show("p", "--all", "--width", "160")
		return strings.Count(picture, "StartContainer") > 1 && strings.Contains(picture, "sandbox start")
	})
	_, rows, _ := strings.Cut(picture, "RuntimeService/RunPodSandbox")
	above := 0
	for _, name := range []string{"RuntimeService/RunPodSandbox", "cri.sandbox.run", "sandbox start"} {
		before, after, found := strings.Cut(rows, name)
		at := len([]rune(before[strings.LastIndexByte(before, '\n')+1:]))
		if !found || at <= above {
			t.Errorf("%s is at %d, what is above it at %d", name, at, above)
		}
		rows, above = after, at
	}
	for _, name := range []string{"cri-tools", "containerd", "StartContainer"} {
		if !strings.Contains(picture, name) {
			t.Errorf("%s is not in the picture", name)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s", strings.Join(got, "\n"), picture)
	}
	var document struct {
		ResourceSpans []json.RawMessage `json:"resourceSpans"`
	}
	check(t, json.Unmarshal([]byte(e.show("p", "--json")), &document))
	if len(document.ResourceSpans) < 4 {
		t.Errorf("the document has %d resources", len(document.ResourceSpans))
	}
	if log := e.Rig.Log(); strings.Contains(log, "overrides export") || strings.Contains(log, "not understood") {
		t.Error("containerd's settings are taken for ours")
	}
}

// TestContainerd17Sends: containerd 1.7, as its own configuration says, sends to us, and
// its shims, which have these settings in their environment, ship nothing in a circle.
func TestContainerd17Sends(t *testing.T) {
	t.Parallel()
	e := startEndpoint(t, traced.Options{Options: rig.Options{Version: rig.V17, TOML: `
[plugins."io.containerd.tracing.processor.v1.otlp"]
  endpoint = "http://` + grpcAddr + `"
  protocol = "grpc"
  insecure = true
[plugins."io.containerd.internal.v1.tracing"]
  sampling_ratio = 1.0
  service_name = "containerd"
`}})
	check(t, e.Rig.Ctr("run", "--rm", "--runtime", e.Runtime.Shim(), image.Busybox, "c1", "true").Check())
	until(t, "the sandbox's spans", func() bool {
		ours, posted := e.spans()
		for _, s := range posted {
			if strings.HasPrefix(s.Scope, "github.com/shimtrace/") {
				t.Fatal("our own spans come back to us")
			}
		}
		for _, s := range ours {
			if s.Name == "shim delete" {
				return true
			}
		}
		return false
	})
	if log := e.Rig.Log(); strings.Contains(log, "overrides export") || strings.Contains(log, "not understood") {
		t.Error("containerd's settings are taken for ours")
	}
	if picture := e.show("c1"); !strings.Contains(picture, "Task/Create") {
		t.Error(picture)
	}
}

// TestPodsCause: what a pod's annotations name is the parent of its root, or linked to
// it; what is no context is warned of, once, and harms nothing.
func TestPodsCause(t *testing.T) {
	t.Parallel()
	bin, err := traced.Bin()
	check(t, err)
	const traceID, spanID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	const header = "00-" + traceID + "-" + spanID + "-01"
	in := traced.Start(t, traced.Options{Options: rig.Options{Version: rig.V24, Runtimes: []rig.Runtime{{
		Name: "passing", Type: rig.Runc.Type, Path: filepath.Join(bin, "containerd-shim-runc-traced-v2"),
		TOML: `pod_annotations = ["tracing.k8s.io/traceparent", "opentelemetry.io/trace-context"]`,
	}}}})
	for name, annotations := range map[string]map[string]string{
		"joined":  {"tracing.k8s.io/traceparent": header},
		"headers": {"opentelemetry.io/trace-context": `{"traceparent": "` + header + `"}`},
		"bad":     {"tracing.k8s.io/traceparent": "<script>"},
	} {
		pod, err := in.Rig.RunPod(rig.Pod{Name: name, Runtime: "passing", HostNetwork: true, Annotations: annotations})
		check(t, err)
		check(t, pod.Remove())
	}
	// ctr writes annotations into the spec itself; and now the sandbox's trace counts.
	config, err := os.ReadFile(in.Config)
	check(t, err)
	check(t, os.WriteFile(in.Config, append(config, "\n[trace]\njoin = 'sandbox'\n"...), 0o600))
	check(t, in.Rig.Ctr("run", "--rm", "--annotation", "tracing.k8s.io/traceparent="+header, "--runtime", in.Runtime.Shim(), image.Busybox, "linked", "true").Check())
	roots := make(map[string]otlprecv.Span)
	until(t, "all sandboxes to be there", func() bool {
		spans, err := in.Spans()
		check(t, err)
		for _, s := range spans {
			if s.Name == "sandbox start" {
				name, ok := s.Resource["k8s.pod.name"].(string)
				if !ok {
					name = s.Resource["shimtrace.sandbox.id"].(string)
				}
				roots[name] = s
			}
		}
		return len(roots) == 4
	})
	for name, s := range roots {
		joined := s.TraceID == traceID && s.ParentID == spanID
		linked := len(s.Links) == 1 && fmt.Sprintf("%x", s.Links[0].SpanId) == spanID
		if joined != (name == "joined" || name == "headers") || linked != (name == "linked") {
			t.Errorf("%s: trace %s below %q, links %v", name, s.TraceID, s.ParentID, s.Links)
		}
	}
	warned := func() int { return strings.Count(in.Rig.Log(), "what caused this pod is not known") }
	until(t, "the log to have the warning", func() bool { return warned() > 0 })
	if n := warned(); n != 1 || strings.Contains(in.Rig.Log(), "<script>") {
		t.Errorf("the log has %d warnings", n)
	}
}
