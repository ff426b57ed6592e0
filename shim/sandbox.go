package shim

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/middleware"
)

// Names of the sandbox's own spans and events; see docs/spans.md.
const (
	spanSandboxStart    = "sandbox start"
	spanShimStart       = "shim start"
	spanInnerStart      = "inner start"
	spanRelaySpawn      = "relay spawn"
	spanContainerExited = "container exited"
	spanExecExited      = "exec exited"
	spanShimDelete      = "shim delete"
	spanInnerDelete     = "inner delete"
)

// Bounds of what is remembered for one sandbox.
const (
	maxContainers = 1024
	maxExits      = 1024 // of one container
)

// sandbox is what the relay knows of its sandbox: it follows the calls that pass
// (middleware.Observer) and makes the spans that are not calls.
type sandbox struct {
	tracer    trace.Tracer
	log       *slog.Logger
	statePath string // of the copy beside the relay's socket
	join      middleware.Join
	root      trace.SpanContext
	agents    *agents                     // nil where there is no VM
	flush     func(context.Context) error // exports what has ended
	exports   sync.WaitGroup

	saving sync.Mutex // of the copy beside the relay's socket
	left   bool       // that copy is no more

	mu         sync.Mutex
	state      state
	lastError  string // of the calls before the first task ran
	containers map[string]*container
}

// container is what is known of one container of the sandbox.
type container struct {
	load  sync.Once
	attrs []attribute.KeyValue
	gone  bool
	exits map[string]time.Time // by exec id: exits already told
}

func newSandbox(tracer trace.Tracer, flush func(context.Context) error, log *slog.Logger, st state, statePath string, join middleware.Join) *sandbox {
	return &sandbox{
		tracer:     tracer,
		flush:      flush,
		log:        log,
		statePath:  statePath,
		join:       join,
		root:       st.Trace.spanContext(),
		state:      st,
		containers: make(map[string]*container),
	}
}

var _ middleware.Observer = (*sandbox)(nil)

// Parent implements middleware.Observer.
func (s *sandbox) Parent(*middleware.Call) trace.SpanContext { return s.root }

// Forwarded implements middleware.Observer.
func (s *sandbox) Forwarded(c *middleware.Call) {
	if s.agents != nil {
		s.agents.began(c)
	}
	if c.Bundle != "" {
		s.adopt(c)
	}
}

// Answered implements middleware.Observer.
func (s *sandbox) Answered(c *middleware.Call) {
	if s.agents != nil {
		s.agents.ended(c)
	}
	switch c.Method {
	case "Create":
		s.adopt(c)
	case "Start", "StartSandbox":
		if c.Code == 0 && c.ExecID == "" {
			s.endRoot(c.End, "")
		}
	case "Wait":
		if c.Code == 0 && c.Exited {
			s.exited(c)
		}
	case "Delete":
		if c.Code == 0 && c.ExecID == "" {
			s.forget(c.ContainerID)
		}
	}
	if c.Code != 0 && !c.Quiet() {
		s.failed(c)
	}
}

// Annotate implements middleware.Observer.
func (s *sandbox) Annotate(c *middleware.Call, span trace.Span) {
	span.SetAttributes(s.attributes(c.ContainerID)...)
}

// attributes returns the span attributes of a container, as far as they are known.
func (s *sandbox) attributes(id string) []attribute.KeyValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ct := s.containers[id]; ct != nil {
		return ct.attrs
	}
	return nil
}

// adopt takes in the container that a Create brings: what its spec says of it,
// the spans that its start left, and in exchange the sandbox's state, for delete.
// It is called when Create was forwarded and when it was answered, in either
// order, and does its work once.
func (s *sandbox) adopt(c *middleware.Call) {
	if c.Bundle == "" {
		return
	}
	id := firstOf(c.ContainerID, c.SandboxID)
	s.mu.Lock()
	ct := s.containers[id]
	if ct == nil || ct.gone {
		s.prune()
		ct = &container{exits: make(map[string]time.Time)}
		if len(s.containers) < maxContainers {
			s.containers[id] = ct
		}
	}
	s.mu.Unlock()
	ct.load.Do(func() {
		notes, err := readAnnotations(c.Bundle)
		if err != nil {
			s.log.Warn("container is traced without its annotations", "container", id, "error", err)
		}
		attrs := notes.container()
		s.mu.Lock()
		ct.attrs = attrs
		s.mu.Unlock()
		s.exchange(c, containerAttributes(id, attrs))
	})
}

// containerAttributes returns the attributes of a span that is about a container.
func containerAttributes(id string, attrs []attribute.KeyValue) []attribute.KeyValue {
	return append([]attribute.KeyValue{semconv.ContainerID(id)}, attrs...)
}

// exchange makes spans, with the attributes, of what start left in the bundle and
// leaves the sandbox's state there.
func (s *sandbox) exchange(c *middleware.Call, attrs []attribute.KeyValue) {
	path := filepath.Join(c.Bundle, stateFile)
	parent := s.root
	var links []trace.Link
	if c.Caller.IsSampled() && s.join == middleware.JoinCaller {
		parent = c.Caller
		if s.root.IsSampled() {
			links = []trace.Link{{SpanContext: s.root}}
		}
	}
	if left, err := readState(path); err == nil {
		ctx := remote(parent)
		for _, t := range left.Pending {
			t.emit(ctx, s.tracer, links, attrs...)
		}
	}
	s.mu.Lock()
	st := s.state
	s.mu.Unlock()
	if err := st.write(path); err != nil {
		s.log.Warn("the end of this container will not be traced", "container", c.ContainerID, "error", err)
	}
}

// emit makes spans of a timing and what is in it.
func (t timing) emit(ctx context.Context, tracer trace.Tracer, links []trace.Link, attrs ...attribute.KeyValue) {
	ctx, span := tracer.Start(ctx, t.Name, trace.WithTimestamp(t.Start), trace.WithLinks(links...), trace.WithAttributes(attrs...))
	if t.Error != "" {
		span.SetStatus(codes.Error, t.Error)
	}
	for _, child := range t.Children {
		child.emit(ctx, tracer, nil, attrs...)
	}
	span.End(trace.WithTimestamp(t.End))
}

// exited tells of the end of a process, once, however many wait for it.
func (s *sandbox) exited(c *middleware.Call) {
	at := c.ExitedAt
	if at.IsZero() {
		at = c.End
	}
	if s.told(c.ContainerID, c.ExecID, at) {
		return
	}
	name := spanContainerExited
	attrs := append([]attribute.KeyValue{
		semconv.ContainerID(c.ContainerID),
		semconv.ProcessExitCode(int(c.ExitStatus)),
	}, s.attributes(c.ContainerID)...)
	if c.ExecID != "" {
		name = spanExecExited
		attrs = append(attrs, middleware.ExecIDKey.String(c.ExecID))
	}
	_, span := s.tracer.Start(remote(s.root), name, trace.WithTimestamp(at), trace.WithAttributes(attrs...))
	span.AddEvent(name, trace.WithTimestamp(at), trace.WithAttributes(semconv.ProcessExitCode(int(c.ExitStatus))))
	span.End(trace.WithTimestamp(at))
}

// told reports whether the exit has been told of before, and remembers it.
func (s *sandbox) told(id, execID string, at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ct := s.containers[id]
	if ct == nil {
		return false
	}
	if ct.exits[execID].Equal(at) {
		return true
	}
	if len(ct.exits) >= maxExits {
		clear(ct.exits)
	}
	ct.exits[execID] = at
	return false
}

func (s *sandbox) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ct := s.containers[id]; ct != nil {
		ct.gone = true
	}
}

// prune removes what was known of deleted containers. Their last spans have had
// it by now.
func (s *sandbox) prune() {
	for id, ct := range s.containers {
		if ct.gone {
			delete(s.containers, id)
		}
	}
}

// failed remembers why the sandbox did not start, in case it never does.
func (s *sandbox) failed(c *middleware.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.RootEnd.IsZero() {
		s.lastError = c.Method + ": " + c.Message
	}
}

// endRoot exports the sandbox's root span, if that has not happened: the first
// task runs, or none ever will (then failure says why). The call whose answer it is
// does not wait for that.
func (s *sandbox) endRoot(at time.Time, failure string) {
	s.mu.Lock()
	over := !s.state.RootEnd.IsZero()
	if !over {
		s.state.RootEnd = at
	}
	st := s.state
	s.mu.Unlock()
	if over {
		return
	}
	emitRoot(s.tracer, &st, at, failure)
	s.save()
	s.exports.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		if err := s.flush(ctx); err != nil {
			s.log.Warn("the sandbox's root span may be exported twice", "error", err)
			return
		}
		// Not before: a relay that is killed leaves the root to delete.
		s.mu.Lock()
		s.state.RootEnded = true
		s.mu.Unlock()
		s.save()
	})
}

// save writes the state beside the relay's socket, until leave.
func (s *sandbox) save() {
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.left {
		return
	}
	s.mu.Lock()
	st := s.state
	s.mu.Unlock()
	if err := st.write(s.statePath); err != nil {
		s.log.Warn("the sandbox's root span may be exported twice", "error", err)
	}
}

// leave says that the relay is about to remove its files.
func (s *sandbox) leave() {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.left = true
}

// neverStarted ends the root of a sandbox that is over, unless a task has, and
// waits until the root is exported.
func (s *sandbox) neverStarted(at time.Time) {
	s.mu.Lock()
	why := "no task was started"
	if s.lastError != "" {
		why += "; " + s.lastError
	}
	s.mu.Unlock()
	s.endRoot(at, why)
	s.exports.Wait()
}
