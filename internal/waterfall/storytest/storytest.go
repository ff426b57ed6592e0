// Package storytest makes the spans of stories for tests: pods as shimtrace records them.
package storytest

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

// Epoch is when the stories of the tests begin.
var Epoch = time.Date(2026, 8, 12, 10, 15, 4, 123e6, time.UTC)

// SandboxID is the id of their sandbox.
const SandboxID = "4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1"

// Script builds spans by name: the ids of a trace and a span derive from their
// names, so parents and links may be named before they exist.
type Script struct{ Spans []*tracepb.ResourceSpans }

// TraceID and SpanID return the ids of a name.
func TraceID(name string) []byte { h := sha256.Sum256([]byte("trace " + name)); return h[:16] }
func SpanID(name string) []byte  { h := sha256.Sum256([]byte("span " + name)); return h[:8] }

// Attr returns a text attribute.
func Attr(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

// Resource returns the resource of a service in the sandbox.
func Resource(service string, more ...*commonpb.KeyValue) *resourcepb.Resource {
	return &resourcepb.Resource{Attributes: append([]*commonpb.KeyValue{
		Attr(names.Service, service), Attr(names.Sandbox, SandboxID), Attr(names.Host, "node-1"), Attr(names.Namespace, "k8s.io"),
		Attr(names.Pod, "web-0"), Attr(names.PodNamespace, "default"),
	}, more...)}
}

// Change changes a span before it is added.
type Change func(*tracepb.Span)

// Span adds a span from at to at+length of the trace; parent "" is a root.
func (s *Script) Span(res *resourcepb.Resource, traceName, id, parent, name string, at, length time.Duration, changes ...Change) {
	start := uint64(Epoch.Add(at).UnixNano())
	span := &tracepb.Span{
		TraceId: TraceID(traceName), SpanId: SpanID(id), Name: name,
		StartTimeUnixNano: start, EndTimeUnixNano: start + uint64(length),
	}
	if parent != "" {
		span.ParentSpanId = SpanID(parent)
	}
	for _, c := range changes {
		c(span)
	}
	s.Spans = append(s.Spans, &tracepb.ResourceSpans{
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

// Message returns the spans as in a journal.
func Message(spans []*tracepb.ResourceSpans) []byte {
	data, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		panic(err)
	}
	return data
}

// With adds attributes.
func With(attrs ...*commonpb.KeyValue) Change {
	return func(s *tracepb.Span) { s.Attributes = append(s.Attributes, attrs...) }
}

// Linked adds a link.
func Linked(traceName, id string) Change {
	return func(s *tracepb.Span) {
		s.Links = append(s.Links, &tracepb.Span_Link{TraceId: TraceID(traceName), SpanId: SpanID(id)})
	}
}

// Failed makes a failure of the span.
func Failed(code, message string) Change {
	return func(s *tracepb.Span) {
		s.Attributes = append(s.Attributes, Attr(names.ErrorType, code))
		s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: message}
	}
}

// Event adds an event, some time after the start.
func Event(name string, after time.Duration) Change {
	return func(s *tracepb.Span) {
		s.Events = append(s.Events, &tracepb.Span_Event{Name: name, TimeUnixNano: s.StartTimeUnixNano + uint64(after)})
	}
}

const ms = time.Millisecond

// Task is the package and service of containerd's calls.
const Task = "containerd.Task.v3.Task/"

// KataPod is a pod of two containers in a VM: startup, an exec that fails, three
// hours, and the end.
func KataPod() *Script {
	s := &Script{}
	shim, agent := Resource("containerd-shim-kata-qemu-v2"), Resource(names.AgentScope)
	app := With(Attr(names.Container, "a11ce000c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e305"), Attr(names.ContainerName, "app"))
	pause := With(Attr(names.Container, SandboxID))
	s.Span(agent, "s", "agent create", "create", "create_sandbox", 700*ms, 95*ms)
	s.Span(agent, "s", "agent mount", "agent create", "baremount", 702*ms, 3*ms)
	s.Span(agent, "s", "agent life", "root", "root-span", 640*ms, 3*time.Hour)
	s.Span(shim, "s", "root", "", names.SandboxStart, 0, 1240*ms)
	s.Span(shim, "s", "start", "root", names.ShimStart, 2*ms, 310*ms)
	s.Span(shim, "s", "inner", "start", names.InnerStart, 3*ms, 300*ms)
	s.Span(shim, "s", "spawn", "start", names.RelaySpawn, 4*ms, 21*ms)
	s.Span(shim, "s", "create", "root", Task+"Create", 320*ms, 850*ms, pause)
	s.Span(shim, "s", "run", "root", Task+"Start", 1180*ms, 58*ms, pause)
	s.Span(shim, "s", "create app", "root", Task+"Create", 1300*ms, 140*ms, app)
	s.Span(agent, "s", "agent create app", "create app", "create_container", 1310*ms, 110*ms, app)
	s.Span(shim, "s", "run app", "root", Task+"Start", 1450*ms, 30*ms, app)
	s.Span(shim, "s", "exec", "root", Task+"Exec", 20*time.Minute, 4*ms, app, With(Attr(names.Exec, "probe")))
	s.Span(shim, "s", "run exec", "root", Task+"Start", 20*time.Minute+5*ms, 12*ms, app, With(Attr(names.Exec, "probe")),
		Failed("NOT_FOUND", "failed to start process: No such file or directory (os error 2)\nStack backtrace:\n   0: anyhow::error"))
	s.Span(shim, "s", "exit", "root", names.ContainerExited, 3*time.Hour, 0, app, Event(names.ContainerExited, 0))
	s.Span(shim, "s", "kill", "root", Task+"Kill", 3*time.Hour-30*ms, 9*ms, app)
	s.Span(shim, "s", "delete", "root", names.ShimDelete, 3*time.Hour+40*ms, 60*ms)
	s.Span(shim, "s", names.InnerDelete, "delete", names.InnerDelete, 3*time.Hour+41*ms, 52*ms)
	return s
}
