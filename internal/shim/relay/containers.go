package relay

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

// Bounds of what is remembered for one sandbox.
const (
	maxContainers = 1024
	maxExits      = 1024 // of one container
)

// container is what is known of one container of the sandbox.
type container struct {
	load   sync.Once
	attrs  []attribute.KeyValue
	gone   bool
	bundle string               // once the sandbox's state is there
	exits  map[string]time.Time // by exec id: exits already told
}

// Attributes returns the span attributes of a container, as far as they are known.
func (s *sandbox) Attributes(id string) []attribute.KeyValue {
	s.mu.Lock()
	bundle, creating := s.creating[id]
	var attrs []attribute.KeyValue
	if ct := s.containers[id]; ct != nil {
		attrs = ct.attrs
	}
	s.mu.Unlock()
	if creating {
		notes, _ := state.ReadAnnotations(bundle) // adopt says what is wrong with it
		return notes.Container()
	}
	return attrs
}

// create notes that a container is about to come: what the inner shim does for it may be
// over before adopt knows of it.
func (s *sandbox) create(c *middleware.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creating[cmp.Or(c.ContainerID, c.SandboxID)] = c.Bundle
}

// created undoes create.
func (s *sandbox) created(c *middleware.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.creating, cmp.Or(c.ContainerID, c.SandboxID))
}

// adopt takes in the container that a Create brings: what its spec says of it,
// the spans that its start left, and in exchange the sandbox's state, for delete.
// It is called when Create was forwarded and when it was answered, in either
// order, and does its work once.
func (s *sandbox) adopt(c *middleware.Call) {
	if c.Bundle == "" {
		return
	}
	id := cmp.Or(c.ContainerID, c.SandboxID)
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
		notes, err := state.ReadAnnotations(c.Bundle)
		if err != nil && !(c.SandboxID != "" && errors.Is(err, fs.ErrNotExist)) {
			s.log.WarnContext(telemetry.Remote(c.SpanContext()), "container is traced without its annotations", "container", id, "error", err)
		}
		attrs := notes.Container()
		s.mu.Lock()
		ct.attrs = attrs
		s.mu.Unlock()
		s.exchange(c, ct, telemetry.ContainerAttributes(id, attrs))
	})
	s.created(c)
}

// exchange makes spans, with the attributes, of what start left in the bundle, if
// tracing is on, and leaves the sandbox's state there: in that order, so that another process
// makes them if this one is killed before it has.
func (s *sandbox) exchange(c *middleware.Call, ct *container, attrs []attribute.KeyValue) {
	path := filepath.Join(c.Bundle, state.File)
	left, _ := state.Read(path)
	parent, link := s.join(c.Caller)
	var links []trace.Link
	if parent.Equal(c.Caller) && link.IsSampled() {
		links = []trace.Link{{SpanContext: link}}
	}
	if left != nil && s.On() {
		ctx := telemetry.Remote(parent)
		for _, t := range left.Pending {
			telemetry.Emit(ctx, s.tracer, t, links, attrs...)
		}
	}
	if err := s.replace(path, c.Bundle, ct); err != nil {
		s.log.WarnContext(telemetry.Remote(c.SpanContext()), "the end of this container will not be traced", "container", c.ContainerID, "error", err)
	}
}

// replace leaves the sandbox's state in a bundle, in the place of what start left
// there.
func (s *sandbox) replace(path, bundle string, ct *container) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	st := s.state
	ct.bundle = bundle
	s.mu.Unlock()
	return st.Write(path)
}

// forget takes note of a container's deletion, also for the delete command, which comes
// after it.
func (s *sandbox) forget(id string) {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	ct, st := s.containers[id], s.state
	if ct == nil {
		s.mu.Unlock()
		return
	}
	ct.gone = true
	bundle := ct.bundle
	s.mu.Unlock()
	if bundle == "" || s.left {
		return
	}
	st.Deleted = true
	if err := st.Write(filepath.Join(bundle, state.File)); err != nil {
		s.log.Debug("delete will not know that the container was deleted", "container", id, "error", err)
	}
}

// prune removes what was known of deleted containers. Their last spans have been made by
// now.
func (s *sandbox) prune() {
	for id, ct := range s.containers {
		if ct.gone {
			delete(s.containers, id)
		}
	}
}

// named takes the pod from the request that creates the sandbox, unless it is known.
func (s *sandbox) named(c *middleware.Call) {
	s.mu.Lock()
	if s.state.Pod != "" || c.SandboxID != s.state.Sandbox {
		s.mu.Unlock()
		return
	}
	s.state.Pod, s.state.PodNamespace, s.state.PodUID = c.Pod.Name, c.Pod.Namespace, c.Pod.UID
	pod := s.state.Annotations()
	s.mu.Unlock()
	if s.setPod != nil {
		s.setPod(pod)
	}
	s.save()
}
