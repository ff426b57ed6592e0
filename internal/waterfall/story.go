package waterfall

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
)

// maxContainers bounds the containers that a story names, maxClaimed those that guests
// name.
const (
	maxContainers = 1 << 14
	maxClaimed    = 64
)

// Container is a container that a story's spans name.
type Container struct {
	ID   string
	Name string // may be empty
}

// Story summarises one run of a sandbox or, where tracing is switched on and off, one
// time that it was on. Texts are as recorded: callers must apply Clean before they
// print them.
type Story struct {
	// Sandbox is the sandbox's id, empty if no span names one.
	Sandbox string
	// Trace is the sandbox's own trace, or without one the trace with the earliest
	// span. Traces are all of them, Trace first.
	Trace  trace.TraceID
	Traces []trace.TraceID
	// Namespace is containerd's.
	Namespace    string
	Host         string
	Pod          string
	PodNamespace string
	// Runtime is the name that the wrapper was called by ("kata-qemu"), or else the
	// inner shim's without the common parts ("kata").
	Runtime string
	// Containers are at most 16,384, in order of appearance.
	Containers []Container
	// Start is when the sandbox's start began, End when the last recorded span ended;
	// or they are when tracing was switched on and off. They are zero if no span has a
	// time. Spans may begin before Start or end after End.
	Start, End time.Time
	// Startup is how long the sandbox took to start, 0 while it starts and if it failed
	// to.
	Startup time.Duration
	Spans   int
	// Errors is the number of failures without the expected ones.
	Errors int

	index *Index
	group int // in the index
	last  int // number of the last message that added to it

	byID    map[string]int // in Containers
	claimed []Container    // by agents; used only without spans of the host
	root    trace.TraceID  // of the span "sandbox start"
	on, off uint64         // when tracing was switched
	begins  bool           // a span tells of the beginning
	ended   bool           // a span tells of the sandbox's deletion
	host    Interval       // of the host's spans
	others  Interval       // of the runtime's and the agent's believable spans
	first   trace.TraceID  // of the earliest span
}

// cover widens the interval to include [lo, hi] and reports whether lo is a new
// beginning. A lo of 0 is no time.
func (i *Interval) cover(lo, hi uint64) (earlier bool) {
	if lo == 0 {
		return false
	}
	earlier = i.From == 0 || lo < i.From
	if earlier {
		i.From = lo
	}
	i.To = max(i.To, hi)
	return earlier
}

// Duration returns the time from Start to End.
func (s *Story) Duration() time.Duration { return s.End.Sub(s.Start) }

// Name returns a name for people: namespace/pod, else the name of the only container,
// else "".
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

// ContainerName returns the name of one of the story's containers, "" if no span names it.
func (s *Story) ContainerName(id string) string {
	if i, ok := s.byID[id]; ok {
		return s.Containers[i].Name
	}
	return ""
}

// has reports whether a span belongs to the story.
func (s *Story) has(res *resource, key spanKey) bool { return s.index.has(s, res, key.trace) }

// note adds a span, recorded at the given time of the host's clock.
func (s *Story) note(res *resource, by Maker, span *Span, recorded uint64) {
	s.Spans++
	if span.Failed {
		s.Errors++
	}
	switch {
	case by == ByAgent || by == ByRuntime:
		if believable(span, recorded) {
			s.others.cover(span.start, span.end)
		}
	case s.host.cover(span.start, span.end) || s.first == (trace.TraceID{}):
		s.first = span.key.trace
	}
	if by == ByShim {
		s.noteShim(res, span)
	}
	setOnce(&s.Namespace, res.namespace)
	setOnce(&s.Host, res.host)
	setOnce(&s.Pod, res.pod)
	setOnce(&s.PodNamespace, res.podNamespace)
	if c := (Container{span.text.container, span.text.containerName}); c.ID != "" && !res.others {
		if by != ByAgent {
			s.container(c)
		} else if len(s.claimed) < maxClaimed && !slices.Contains(s.claimed, c) {
			s.claimed = append(s.claimed, c)
		}
	}
}

// noteShim adds what only shimtrace itself may say.
func (s *Story) noteShim(res *resource, span *Span) {
	setOnce(&s.Runtime, runtimeName(res))
	switch span.Name {
	case names.SandboxStart:
		s.root = span.key.trace
		if !span.Failed {
			s.Startup = max(s.Startup, time.Duration(span.end-span.start))
		}
		s.begins = true
	case names.ShimStart:
		s.begins = s.begins || ofSandbox(res, span)
	case names.ShimDelete:
		s.ended = s.ended || ofSandbox(res, span)
	case names.SwitchedOn:
		s.on = earliest(s.on, span.start)
		s.root = span.key.trace
	case names.SwitchedOff:
		s.off = max(s.off, span.end)
	}
}

// ofSandbox reports whether a span is about the sandbox itself, not one of its containers.
func ofSandbox(res *resource, span *Span) bool {
	return span.text.container == "" || span.text.container == res.sandbox
}

// Begins reports whether the story is known from its beginning: its sandbox's start, or
// tracing being switched on.
func (s *Story) Begins() bool { return s.begins || s.on != 0 }

// Ended reports whether the story is over: its sandbox has been deleted, or tracing has been
// switched off.
func (s *Story) Ended() bool { return s.ended || s.off != 0 && s.off >= s.on }

// clockUnset is a time before which only a clock that was never set can be.
var clockUnset = uint64(time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())

// aheadBy bounds how far a guest's clock may be ahead of the host's.
const aheadBy = uint64(time.Minute)

// believable reports whether a guest's span may have the times it claims: it cannot end
// after it was recorded.
func believable(s *Span, recorded uint64) bool {
	return s.start > clockUnset && s.end <= recorded+aheadBy
}

func earliest(a, b uint64) uint64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// container adds a container by its id; its name may come with any of its spans.
func (s *Story) container(c Container) {
	if i, ok := s.byID[c.ID]; ok {
		setOnce(&s.Containers[i].Name, c.Name)
		return
	}
	if len(s.Containers) < maxContainers {
		if s.byID == nil {
			s.byID = make(map[string]int)
		}
		s.byID[c.ID] = len(s.Containers)
		s.Containers = append(s.Containers, c)
	}
}

// absorb adds what another part of the same story has.
func (s *Story) absorb(o *Story) {
	s.Spans += o.Spans
	s.Errors += o.Errors
	s.Startup = max(s.Startup, o.Startup)
	s.last = max(s.last, o.last)
	s.on, s.off = earliest(s.on, o.on), max(s.off, o.off)
	s.begins, s.ended = s.begins || o.begins, s.ended || o.ended
	s.others.cover(o.others.From, o.others.To)
	if s.host.cover(o.host.From, o.host.To) || s.first == (trace.TraceID{}) {
		s.first = o.first
	}
	if !s.root.IsValid() {
		s.root = o.root
	}
	setOnce(&s.Runtime, o.Runtime)
	setOnce(&s.Namespace, o.Namespace)
	setOnce(&s.Host, o.Host)
	setOnce(&s.Pod, o.Pod)
	setOnce(&s.PodNamespace, o.PodNamespace)
	for _, c := range o.Containers {
		s.container(c)
	}
	s.claimed = append(s.claimed, o.claimed[:min(len(o.claimed), maxClaimed-len(s.claimed))]...)
}

// clone returns a copy that can be completed while s goes on.
func (s *Story) clone() *Story {
	c := *s
	c.Containers, c.claimed, c.Traces = slices.Clone(s.Containers), slices.Clone(s.claimed), slices.Clone(s.Traces)
	c.byID = maps.Clone(s.byID)
	return &c
}

func (s *Story) setSandbox(id string) { setOnce(&s.Sandbox, id) }

// finish completes the story after the last span.
func (s *Story) finish() {
	if s.host.From == 0 {
		for _, c := range s.claimed {
			s.container(c)
		}
	}
	if e := s.Interval(); e.From != 0 {
		s.Start, s.End = time.Unix(0, int64(e.From)), time.Unix(0, int64(e.To))
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

// Interval returns the time of the story, zero if no span has a time: while tracing was on,
// or from the host's first span to the last of all spans. The runtime's and the agent's
// life-long spans begin before that, and a guest's clock may say anything.
func (s *Story) Interval() Interval {
	e := s.host
	if e.From == 0 {
		return s.others
	}
	e.To = max(e.To, s.others.To)
	if s.on != 0 {
		e.From = s.on
		if s.off >= s.on {
			e.To = s.off
		}
	}
	return e
}

// runtimeName returns a resource's runtime. Without one, it shortens the service:
// "containerd-shim-kata-v2" to "kata".
func runtimeName(res *resource) string {
	if res.runtime != "" {
		return res.runtime
	}
	name, ok := strings.CutPrefix(res.service, "containerd-shim-")
	if !ok {
		return res.service
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
