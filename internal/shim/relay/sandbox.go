package relay

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/shim/expected"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/middleware"
)

// sandbox is what the relay knows of its sandbox: it follows the calls that pass
// (middleware.Observer) and makes the spans that are not calls.
type sandbox struct {
	middleware.NopObserver
	tracer    trace.Tracer
	log       *slog.Logger
	statePath string      // of the copy beside the relay's socket
	own       atomic.Bool // calls are in the sandbox's trace, whatever trace their callers have
	rootNow   atomic.Pointer[trace.SpanContext]
	switcher  *switcher
	windows   windows                     // nil if nobody wants to know of them
	lives     *expected.Lives             // of the containers, as calls tell
	export    func(context.Context) error // all that has ended
	setPod    func(state.Annotations)     // nil in tests
	saver     saver                       // for another process that goes on for this one
	exports   sync.WaitGroup
	// started is told how long the start took, or why it or a container's failed; nil:
	// nobody is.
	started func(took time.Duration, failure string) error
	// rootAttributes return further attributes of the root span. They may take some
	// milliseconds.
	rootAttributes []func() []attribute.KeyValue

	firstPID   atomic.Uint32 // of the first process that was started
	unrecorded atomic.Uint64 // spans of others, of times when tracing was off

	saving sync.Mutex // of the copies beside the relay's socket and in bundles
	left   bool       // the copies are no longer written

	mu          sync.Mutex
	state       state.State
	lastError   string // of the calls before the first task ran
	rootFailure string // the root span's, once it has ended
	rootOver    bool   // and nothing is to be done for it any more
	// containerFailed: a container has failed to start in a sandbox that had.
	containerFailed bool
	containers      map[string]*container
	creating        map[string]string // by container: the bundle of a Create that adopt has yet to take in
}

func newSandbox(tracer trace.Tracer, export func(context.Context) error, log *slog.Logger, st state.State, statePath string, own bool) *sandbox {
	s := &sandbox{
		tracer:     tracer,
		export:     export,
		log:        log,
		statePath:  statePath,
		state:      st,
		containers: make(map[string]*container),
		creating:   make(map[string]string),
		lives:      expected.OfTasks(),
	}
	root := st.Trace.SpanContext()
	s.rootNow.Store(&root)
	s.own.Store(own)
	return s
}

var _ middleware.Observer = (*sandbox)(nil)

// Parent implements middleware.Observer.
func (s *sandbox) Parent(c *middleware.Call) (parent, link trace.SpanContext) {
	return s.join(c.Caller)
}

// join returns which of the two traces a call of the caller's belongs to, and which it is
// linked to. A caller that is not sampled has no trace that could be joined.
func (s *sandbox) join(caller trace.SpanContext) (parent, link trace.SpanContext) {
	root := s.Root()
	if s.own.Load() || !caller.IsValid() || root.IsSampled() && !caller.IsSampled() {
		return root, caller
	}
	return caller, root
}

// Began implements middleware.Observer.
func (s *sandbox) Began(c *middleware.Call) {
	if c.Bundle != "" {
		s.create(c)
	}
}

// Lost implements middleware.Observer.
func (s *sandbox) Lost(c *middleware.Call) {
	if c.Bundle != "" {
		s.created(c)
	}
}

// Forwarded implements middleware.Observer.
func (s *sandbox) Forwarded(c *middleware.Call) {
	s.lives.Forwarded(c)
	if s.lives.Follows(c) {
		defer s.saver.soon()
	}
	if c.Pod.Name != "" {
		s.named(c)
	}
	if c.Bundle != "" {
		s.adopt(c)
	}
}

// Answered implements middleware.Observer.
func (s *sandbox) Answered(c *middleware.Call) {
	s.lives.Answered(c)
	if s.lives.Follows(c) {
		defer s.saver.soon()
	}
	switch c.Method {
	case "Create":
		s.adopt(c)
	case "Start", "StartSandbox":
		if c.Code == 0 && c.ExecID == "" {
			s.firstPID.CompareAndSwap(0, c.PID)
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
	if c.Code != 0 && !c.Quiet() && !c.Expected {
		s.failed(c)
	}
}

// Annotate implements middleware.Observer.
func (s *sandbox) Annotate(c *middleware.Call, span trace.Span) {
	span.SetAttributes(s.Attributes(c.ContainerID)...)
}
