package shim

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/errtext"
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
		if err != nil && !(c.SandboxID != "" && errors.Is(err, fs.ErrNotExist)) {
			s.log.Warn("container is traced without its annotations", "container", id, "error", err)
		}
		attrs := notes.container()
		s.mu.Lock()
		ct.attrs = attrs
		s.mu.Unlock()
		s.exchange(c, ct, containerAttributes(id, attrs))
	})
}

// containerAttributes returns the attributes of a span that is about a container.
func containerAttributes(id string, attrs []attribute.KeyValue) []attribute.KeyValue {
	return append([]attribute.KeyValue{semconv.ContainerID(id)}, attrs...)
}

// exchange makes spans, with the attributes, of what start left in the bundle, if
// tracing is on, and leaves the sandbox's state there.
func (s *sandbox) exchange(c *middleware.Call, ct *container, attrs []attribute.KeyValue) {
	path := filepath.Join(c.Bundle, stateFile)
	left, err := s.replace(path, c.Bundle, ct)
	parent, link := s.join(c.Caller)
	var links []trace.Link
	if parent.Equal(c.Caller) && link.IsSampled() {
		links = []trace.Link{{SpanContext: link}}
	}
	if left != nil && s.on() {
		ctx := remote(parent)
		for _, t := range left.Pending {
			t.emit(ctx, s.tracer, links, attrs...)
		}
	}
	if err != nil {
		s.log.Warn("the end of this container will not be traced", "container", c.ContainerID, "error", err)
	}
}

// replace leaves the sandbox's state in a bundle, in the place of what start left
// there.
func (s *sandbox) replace(path, bundle string, ct *container) (left *state, err error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	left, _ = readState(path)
	s.mu.Lock()
	st := s.state
	ct.bundle = bundle
	s.mu.Unlock()
	return left, st.write(path)
}

// emit makes spans of a timing and what is in it.
func (t timing) emit(ctx context.Context, tracer trace.Tracer, links []trace.Link, attrs ...attribute.KeyValue) {
	ctx, span := tracer.Start(ctx, t.Name, trace.WithTimestamp(t.Start), trace.WithLinks(links...), trace.WithAttributes(attrs...))
	switch {
	case t.Expected:
		span.SetAttributes(middleware.ExpectedKey.Bool(true), middleware.ExpectedMessageKey.String(errtext.Reduce(t.Error)))
	case t.Error != "":
		span.SetStatus(codes.Error, errtext.Reduce(t.Error))
	}
	for _, child := range t.Children {
		child.emit(ctx, tracer, nil, attrs...)
	}
	span.End(trace.WithTimestamp(t.End))
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
	if err := st.write(filepath.Join(bundle, stateFile)); err != nil {
		s.log.Debug("delete will not know that the container was deleted", "container", id, "error", err)
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
