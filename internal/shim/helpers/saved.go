package helpers

import (
	"encoding/json"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/procevents"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// saved is what a process needs to go on for this one.
type saved struct {
	First   time.Time     `json:"first,omitzero"`
	Helpers []savedHelper `json:"helpers,omitempty"`
	// Programs were executed in containers, and await their names.
	Programs []savedProgram `json:"programs,omitempty"`
}

type savedProgram struct {
	PID int       `json:"pid"`
	At  time.Time `json:"at"`
}

// savedHelper is a helper whose span has not ended.
type savedHelper struct {
	procevents.Report
	Span   state.TraceContext `json:"span"`
	Parent state.TraceContext `json:"parent"`
	Began  time.Time          `json:"began"`
	Over   time.Time          `json:"over,omitzero"`
	Wait   uint32             `json:"wait,omitempty"`
	Missed bool               `json:"missed,omitempty"`
}

// Save returns what another process is to know.
func (o *Observer) Save() (json.RawMessage, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := saved{First: o.first}
	for _, h := range o.open {
		s.Helpers = append(s.Helpers, savedHelper{
			Report: h.Report, Span: state.NewTraceContext(h.span.SpanContext()), Parent: state.NewTraceContext(h.parent),
			Began: h.at, Over: h.end, Wait: uint32(h.status), Missed: h.lost,
		})
	}
	for _, n := range o.nameless {
		if n.helper == nil {
			s.Programs = append(s.Programs, savedProgram{n.pid, n.at})
		}
	}
	return json.Marshal(s)
}

// Restore takes over what another process has saved. Nobody else has the Observer yet, and
// no call has begun: a program without a name waits until a call ends.
func (o *Observer) Restore(text json.RawMessage) error {
	if len(text) == 0 {
		return nil
	}
	var s saved
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("helpers of the inner shim: %w", err)
	}
	if o.first = s.First; !o.first.IsZero() {
		o.awaited()
	}
	for _, was := range s.Helpers {
		h := &helper{Report: was.Report, parent: was.Parent.SpanContext(), at: was.Began, status: status(was.Wait), lost: was.Missed}
		ids := was.Span.SpanContext()
		ctx := export.ContextWithSampled(telemetry.Remote(h.parent), ids.TraceID(), ids.SpanID())
		_, h.span = o.Tracer.Start(ctx, h.name(), trace.WithTimestamp(h.at))
		if o.open[h.PID] = h; was.Over.IsZero() {
			continue
		}
		if h.end, h.over = was.Over, true; h.Program == "" {
			o.nameless = append(o.nameless, &nameless{pid: h.PID, at: h.at, helper: h})
		} else {
			o.record(h)
		}
	}
	for _, was := range s.Programs {
		o.nameless = append(o.nameless, &nameless{pid: was.PID, at: was.At})
	}
	return nil
}
