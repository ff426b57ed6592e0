package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/shimtrace/shimtrace/internal/shim/expected"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// savedVersion is the version of what a relay saves. Keys that a reader does not know are
// ignored, and what is not there is as if nothing had been seen; a change that is not
// understood that way takes another version.
const savedVersion = 1

// saved is what a process needs to go on for a relay, besides the descriptors and the
// connections' own memory. It is written whenever the sandbox's life changes, not with each
// call.
type saved struct {
	Version   int             `json:"version"`
	Who       state.Identity  `json:"who"`
	Container string          `json:"container"`
	Resumed   int             `json:"resumed,omitempty"` // processes before this one
	Settings  *settings       `json:"settings,omitempty"`
	Sandbox   savedSandbox    `json:"sandbox"`
	Kata      json.RawMessage `json:"kata,omitempty"`
	Helpers   json.RawMessage `json:"helpers,omitempty"`
}

// savedSandbox is what is known of the sandbox.
type savedSandbox struct {
	State       state.State               `json:"state"`
	LastError   string                    `json:"last_error,omitempty"`
	RootFailure string                    `json:"root_failure,omitempty"`
	Containers  map[string]savedContainer `json:"containers,omitempty"`
	Lives       *expected.Lives           `json:"lives"`
	Unrecorded  uint64                    `json:"unrecorded,omitempty"`
}

type savedContainer struct {
	Attributes []savedAttribute     `json:"attributes,omitempty"`
	Bundle     string               `json:"bundle,omitempty"`
	Gone       bool                 `json:"gone,omitempty"`
	Exits      map[string]time.Time `json:"exits,omitempty"`
}

type savedAttribute struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// read parses what a relay has saved.
func (s *saved) read(text []byte) error {
	s.Sandbox.Lives = expected.OfTasks()
	if err := json.Unmarshal(text, s); err != nil {
		return fmt.Errorf("what the relay saved: %w", err)
	}
	if s.Version != savedVersion {
		return fmt.Errorf("what the relay saved has version %d, this program knows version %d", s.Version, savedVersion)
	}
	if !s.Sandbox.State.Trace.SpanContext().IsValid() {
		return errors.New("what the relay saved has no valid trace")
	}
	return nil
}

// saved returns what is known of the sandbox, for another process.
func (s *sandbox) saved() savedSandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := savedSandbox{
		State: s.state, LastError: s.lastError, RootFailure: s.rootFailure,
		Containers: make(map[string]savedContainer, len(s.containers)), Lives: s.lives, Unrecorded: s.unrecorded.Load(),
	}
	for id, ct := range s.containers {
		c := savedContainer{Bundle: ct.bundle, Gone: ct.gone, Exits: make(map[string]time.Time, len(ct.exits))}
		for exec, at := range ct.exits {
			c.Exits[exec] = at
		}
		for _, kv := range ct.attrs {
			c.Attributes = append(c.Attributes, savedAttribute{string(kv.Key), kv.Value.AsString()})
		}
		out.Containers[id] = c
	}
	return out
}

// restore takes over what another process knew. Nobody else has the sandbox yet.
func (s *sandbox) restore(was savedSandbox) {
	s.lastError, s.rootFailure = was.LastError, was.RootFailure
	s.unrecorded.Store(was.Unrecorded)
	if was.Lives != nil {
		s.lives = was.Lives
	}
	for id, c := range was.Containers {
		ct := &container{bundle: c.Bundle, gone: c.Gone, exits: c.Exits}
		if ct.exits == nil {
			ct.exits = make(map[string]time.Time)
		}
		for _, a := range c.Attributes {
			ct.attrs = append(ct.attrs, attribute.String(a.Key, a.Value))
		}
		ct.load.Do(func() {})
		s.containers[id] = ct
	}
	if s.state.Window != nil && !s.state.Dynamic {
		s.log.Warn("what the relay saved has a window of tracing on demand, which is off here: it is left out")
		s.state.Window = nil
	}
	if w := s.state.Window; w != nil {
		root := w.Trace.SpanContext()
		s.rootNow.Store(&root)
		if s.windows != nil {
			s.windows.Opened(root, w.Began)
		}
		if w.Ended.IsZero() {
			s.switcher.resume(w)
		} else if s.windows != nil {
			s.windows.Closed(w.Ended)
		}
	}
	s.rootOver = s.state.RootEnded
	if !s.state.Dynamic && !s.state.RootEnd.IsZero() && !s.state.RootEnded {
		s.exportRoot(s.state, s.rootFailure)
	}
}

// saver writes into the relay's memory, one at a time. It saves nothing before begin.
type saver struct {
	saving sync.Mutex
	mu     sync.Mutex
	save   func() // nil before begin
	dirty  bool   // something has changed since the last save began
	busy   bool   // a goroutine is at it
}

// begin saves by calling save, for the first time at once. now and soon may have been
// called before; they save nothing until everything is restored.
func (s *saver) begin(save func()) {
	s.mu.Lock()
	s.save = save
	s.mu.Unlock()
	s.now()
}

// now saves at once.
func (s *saver) now() {
	s.mu.Lock()
	save := s.save
	s.mu.Unlock()
	if save == nil {
		return
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	save()
}

// soon saves in the background, once for all calls of soon that have come meanwhile.
func (s *saver) soon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = true
	if s.save == nil || s.busy {
		return
	}
	s.busy = true
	go func() {
		for s.more() {
			s.now()
		}
	}()
}

func (s *saver) more() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy, s.dirty = s.dirty, false
	return s.busy
}
