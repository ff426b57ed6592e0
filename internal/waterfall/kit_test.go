package waterfall

import (
	"crypto/sha256"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/names"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// epoch is when the stories of the tests begin.
var epoch = time.Date(2026, 8, 12, 10, 15, 4, 123e6, time.UTC)

const sandboxID = "4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1"

// script builds spans by name: the ids of a trace and a span derive from their
// names, so parents and links may be named before they exist.
type script struct{ spans []*tracepb.ResourceSpans }

func traceBytes(name string) []byte { h := sha256.Sum256([]byte("trace " + name)); return h[:16] }
func spanBytes(name string) []byte  { h := sha256.Sum256([]byte("span " + name)); return h[:8] }

func attr(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

func resourceOf(service string, more ...*commonpb.KeyValue) *resourcepb.Resource {
	return &resourcepb.Resource{Attributes: append([]*commonpb.KeyValue{
		attr(names.Service, service), attr(names.Sandbox, sandboxID), attr(names.Host, "node-1"), attr(names.Namespace, "k8s.io"),
		attr(names.Pod, "web-0"), attr(names.PodNamespace, "default"),
	}, more...)}
}

type change func(*tracepb.Span)

// span adds a span from at to at+length of the trace; parent "" is a root.
func (s *script) span(res *resourcepb.Resource, traceName, id, parent, name string, at, length time.Duration, changes ...change) {
	start := uint64(epoch.Add(at).UnixNano())
	span := &tracepb.Span{
		TraceId: traceBytes(traceName), SpanId: spanBytes(id), Name: name,
		StartTimeUnixNano: start, EndTimeUnixNano: start + uint64(length),
	}
	if parent != "" {
		span.ParentSpanId = spanBytes(parent)
	}
	for _, c := range changes {
		c(span)
	}
	s.spans = append(s.spans, &tracepb.ResourceSpans{
		Resource:   res,
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: scopeOf(res), Spans: []*tracepb.Span{span}}},
	})
}

// scopeOf is the scope that goes with a resource's service.
func scopeOf(res *resourcepb.Resource) *commonpb.InstrumentationScope {
	for _, kv := range res.Attributes {
		if service := kv.Value.GetStringValue(); kv.Key == names.Service {
			if strings.HasPrefix(service, "containerd-shim-") {
				service = names.ShimScope
			}
			return &commonpb.InstrumentationScope{Name: service}
		}
	}
	return nil
}

// message returns the spans as in a journal.
func message(spans []*tracepb.ResourceSpans) []byte {
	data, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		panic(err)
	}
	return data
}

// recorded is long after everything in the scripts.
var recorded = epoch.Add(365 * 24 * time.Hour)

func indexOf(spans []*tracepb.ResourceSpans) *Index {
	x := NewIndex()
	if err := x.Add(message(spans), recorded); err != nil {
		panic(err)
	}
	return x
}

// build builds the tree of the story's spans, or of all without a story.
func build(s *Story, spans []*tracepb.ResourceSpans, l Limits) *Tree {
	b := NewBuilder(s, l, true)
	if err := b.Add(message(spans)); err != nil {
		panic(err)
	}
	return b.Tree()
}

func with(attrs ...*commonpb.KeyValue) change {
	return func(s *tracepb.Span) { s.Attributes = append(s.Attributes, attrs...) }
}

func linked(traceName, id string) change {
	return func(s *tracepb.Span) {
		s.Links = append(s.Links, &tracepb.Span_Link{TraceId: traceBytes(traceName), SpanId: spanBytes(id)})
	}
}

func wrong(code, message string) change {
	return func(s *tracepb.Span) {
		s.Attributes = append(s.Attributes, attr(names.ErrorType, code))
		s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: message}
	}
}

func event(name string, after time.Duration) change {
	return func(s *tracepb.Span) {
		s.Events = append(s.Events, &tracepb.Span_Event{Name: name, TimeUnixNano: s.StartTimeUnixNano + uint64(after)})
	}
}

const ms = time.Millisecond

const task = "containerd.task.v3.Task/"

// kataPod is a pod of two containers in a VM: startup, an exec that fails, three
// hours, and the end.
func kataPod() *script {
	s := &script{}
	shim, agent := resourceOf("containerd-shim-kata-qemu-v2"), resourceOf(names.AgentScope)
	app := with(attr(names.Container, "a11ce000c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e305"), attr(names.ContainerName, "app"))
	pause := with(attr(names.Container, sandboxID))
	s.span(agent, "s", "agent create", "create", "create_sandbox", 700*ms, 95*ms)
	s.span(agent, "s", "agent mount", "agent create", "baremount", 702*ms, 3*ms)
	s.span(agent, "s", "agent life", "root", "root-span", 640*ms, 3*time.Hour)
	s.span(shim, "s", "root", "", names.SandboxStart, 0, 1240*ms)
	s.span(shim, "s", "start", "root", names.ShimStart, 2*ms, 310*ms)
	s.span(shim, "s", "inner", "start", "inner start", 3*ms, 300*ms)
	s.span(shim, "s", "spawn", "start", "relay spawn", 4*ms, 21*ms)
	s.span(shim, "s", "create", "root", task+"Create", 320*ms, 850*ms, pause)
	s.span(shim, "s", "run", "root", task+"Start", 1180*ms, 58*ms, pause)
	s.span(shim, "s", "create app", "root", task+"Create", 1300*ms, 140*ms, app)
	s.span(agent, "s", "agent create app", "create app", "create_container", 1310*ms, 110*ms, app)
	s.span(shim, "s", "run app", "root", task+"Start", 1450*ms, 30*ms, app)
	s.span(shim, "s", "exec", "root", task+"Exec", 20*time.Minute, 4*ms, app, with(attr(names.Exec, "probe")))
	s.span(shim, "s", "run exec", "root", task+"Start", 20*time.Minute+5*ms, 12*ms, app, with(attr(names.Exec, "probe")),
		wrong("NOT_FOUND", "failed to start process: No such file or directory (os error 2)\nStack backtrace:\n   0: anyhow::error"))
	s.span(shim, "s", "exit", "root", "container exited", 3*time.Hour, 0, app, event("container exited", 0))
	s.span(shim, "s", "kill", "root", task+"Kill", 3*time.Hour-30*ms, 9*ms, app)
	s.span(shim, "s", "delete", "root", "shim delete", 3*time.Hour+40*ms, 60*ms)
	s.span(shim, "s", "inner delete", "delete", "inner delete", 3*time.Hour+41*ms, 52*ms)
	return s
}

// only returns the one story of the spans.
func only(spans []*tracepb.ResourceSpans) (*Story, *Tree) {
	stories := indexOf(spans).Stories()
	if len(stories) != 1 {
		panic("not one story")
	}
	return stories[0], build(stories[0], spans, Limits{})
}
