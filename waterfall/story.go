package waterfall

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// maxContainers bounds how many containers a story names.
const maxContainers = 64

// Container is a container that a story's spans name.
type Container struct {
	ID   string
	Name string // may be empty
}

// Story is one run of a sandbox, in short. Texts are as they were recorded:
// callers that print them apply Clean.
type Story struct {
	// Sandbox is the sandbox's id, empty when no span names one.
	Sandbox string
	// Trace is the sandbox's own trace, or the one with the earliest span when
	// the sandbox has none. Traces are all of them, Trace first.
	Trace  trace.TraceID
	Traces []trace.TraceID
	// Namespace is containerd's.
	Namespace    string
	Host         string
	Pod          string
	PodNamespace string
	// Runtime is the inner shim's name without what all shims' names have:
	// "runc", "kata-qemu".
	Runtime string
	// Containers are at most 64, in the order of their appearance.
	Containers []Container
	// Start and End are those of the first and the last span on the host's clock,
	// zero when no span has a time.
	Start, End time.Time
	// Startup is how long the sandbox took to start, 0 while it starts and when
	// it failed to.
	Startup time.Duration
	Spans   int
	Errors  int

	parts map[part]struct{} // those that spans were found of
	root  trace.TraceID     // that of the span "sandbox start"
	host  interval          // of the host's spans
	guest interval          // of the agent's spans
	first trace.TraceID     // that of the earliest span
}

type interval struct{ lo, hi uint64 }

// cover widens the interval to hold [lo, hi] and reports whether lo is a new
// beginning. Zero is no time.
func (i *interval) cover(lo, hi uint64) (earlier bool) {
	if lo == 0 {
		return false
	}
	earlier = i.lo == 0 || lo < i.lo
	if earlier {
		i.lo = lo
	}
	i.hi = max(i.hi, hi)
	return earlier
}

// Duration is the time from the first span's start to the last one's end.
func (s *Story) Duration() time.Duration { return s.End.Sub(s.Start) }

// Name is what a person calls the story by: namespace/pod, else the name of its
// only container, else "".
func (s *Story) Name() string {
	switch {
	case s.Pod != "" && s.PodNamespace != "":
		return s.PodNamespace + "/" + s.Pod
	case s.Pod != "":
		return s.Pod
	case len(s.Containers) == 1:
		return s.Containers[0].Name
	}
	return ""
}

// Select returns the spans among spans that belong to the story. The result
// shares its spans, not its lists, with what was given.
func (s *Story) Select(spans []*tracepb.ResourceSpans) []*tracepb.ResourceSpans {
	var out []*tracepb.ResourceSpans
	for _, rs := range spans {
		sandbox := resourceText(rs.GetResource(), attrSandbox)
		var scopes []*tracepb.ScopeSpans
		for _, ss := range rs.GetScopeSpans() {
			var mine []*tracepb.Span
			for _, span := range ss.GetSpans() {
				if key, ok := keyOf(span.GetTraceId(), span.GetSpanId()); ok {
					if _, ok := s.parts[part{key.trace, sandbox}]; ok {
						mine = append(mine, span)
					}
				}
			}
			if mine != nil {
				scopes = append(scopes, &tracepb.ScopeSpans{Scope: ss.GetScope(), Spans: mine, SchemaUrl: ss.GetSchemaUrl()})
			}
		}
		if scopes != nil {
			out = append(out, &tracepb.ResourceSpans{Resource: rs.GetResource(), ScopeSpans: scopes, SchemaUrl: rs.GetSchemaUrl()})
		}
	}
	return out
}

// note takes one span into account.
func (s *Story) note(p part, res *resourcepb.Resource, span *tracepb.Span) {
	s.Spans++
	s.parts[p] = struct{}{}
	if failed(span) {
		s.Errors++
	}
	service := resourceText(res, attrService)
	lo, hi := spanTimes(span)
	switch {
	case service == agentService:
		s.guest.cover(lo, hi)
	case s.host.cover(lo, hi) || s.first == (trace.TraceID{}):
		s.first = p.trace
	}
	if service != "" && service != agentService && service != kataService && s.Runtime == "" {
		s.Runtime = runtimeName(service)
	}
	if span.GetName() == rootName {
		s.root = p.trace
		if !failed(span) {
			s.Startup = max(s.Startup, time.Duration(hi-lo))
		}
	}
	setOnce(&s.Sandbox, p.sandbox)
	setOnce(&s.Namespace, resourceText(res, attrNamespace))
	setOnce(&s.Host, resourceText(res, attrHost))
	setOnce(&s.Pod, resourceText(res, attrPod))
	setOnce(&s.PodNamespace, resourceText(res, attrPodNamespace))
	if id := lookup(span.GetAttributes(), attrContainer); id != "" {
		s.container(Container{ID: id, Name: lookup(span.GetAttributes(), attrContainerName)})
	}
}

// container notes a container by its id; a name may come with any of its spans.
func (s *Story) container(c Container) {
	for i := range s.Containers {
		if s.Containers[i].ID == c.ID {
			setOnce(&s.Containers[i].Name, c.Name)
			return
		}
	}
	if len(s.Containers) < maxContainers {
		s.Containers = append(s.Containers, c)
	}
}

// absorb takes over what another part of the same story noted.
func (s *Story) absorb(o *Story) {
	s.Spans += o.Spans
	s.Errors += o.Errors
	s.Startup = max(s.Startup, o.Startup)
	s.guest.cover(o.guest.lo, o.guest.hi)
	if s.host.cover(o.host.lo, o.host.hi) || s.first == (trace.TraceID{}) {
		s.first = o.first
	}
	if !s.root.IsValid() {
		s.root = o.root
	}
	setOnce(&s.Runtime, o.Runtime)
	setOnce(&s.Sandbox, o.Sandbox)
	setOnce(&s.Namespace, o.Namespace)
	setOnce(&s.Host, o.Host)
	setOnce(&s.Pod, o.Pod)
	setOnce(&s.PodNamespace, o.PodNamespace)
	for _, c := range o.Containers {
		s.container(c)
	}
	maps.Copy(s.parts, o.parts)
}

// finish completes the story when everything was noted.
func (s *Story) finish() {
	times := s.host
	if times.lo == 0 {
		times = s.guest
	}
	if times.lo != 0 {
		s.Start, s.End = time.Unix(0, int64(times.lo)), time.Unix(0, int64(times.hi))
	}
	for p := range s.parts {
		s.Traces = append(s.Traces, p.trace)
	}
	slices.SortFunc(s.Traces, func(a, b trace.TraceID) int { return bytes.Compare(a[:], b[:]) })
	s.Traces = slices.Compact(s.Traces)
	s.Trace = s.root
	if !s.Trace.IsValid() {
		s.Trace = s.first
	}
	if !s.Trace.IsValid() {
		s.Trace = s.Traces[0]
	}
	if i := slices.Index(s.Traces, s.Trace); i > 0 {
		s.Traces = slices.Insert(slices.Delete(s.Traces, i, i+1), 0, s.Trace)
	}
}

// runtimeName shortens "containerd-shim-kata-qemu-v2" to "kata-qemu".
func runtimeName(service string) string {
	name, ok := strings.CutPrefix(service, "containerd-shim-")
	if !ok {
		return service
	}
	if i := strings.LastIndex(name, "-v"); i > 0 {
		name = name[:i]
	}
	return name
}

func setOnce(to *string, value string) {
	if *to == "" {
		*to = value
	}
}
