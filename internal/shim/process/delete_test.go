package process

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// deleteResponse encodes a DeleteResponse; fields that are zero are not on the wire.
func deleteResponse(pid, status uint64, exited time.Time) (b []byte) {
	for i, v := range []uint64{pid, status} {
		if v != 0 {
			b = protowire.AppendVarint(protowire.AppendTag(b, protowire.Number(i+1), protowire.VarintType), v)
		}
	}
	if !exited.IsZero() {
		at := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(exited.Unix()))
		b = protowire.AppendBytes(protowire.AppendTag(b, 3, protowire.BytesType), at)
	}
	return b
}

var (
	t0      = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	caller7 = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{7}, SpanID: trace.SpanID{8}, TraceFlags: trace.FlagsSampled, Remote: true})
)

// deletion is a sandbox's state, and records the spans of a delete in it.
type deletion struct {
	*shimtest.Spans
	tracer trace.Tracer
	state  state.State
}

func newDeletion(t *testing.T, dynamic bool) *deletion {
	cfg := config.Default().Trace
	spans := shimtest.NewSpans(t)
	sc := export.NewRoot(t.Context(), cfg)
	if dynamic {
		sc = sc.WithTraceFlags(0)
	}
	return &deletion{
		Spans:  spans,
		tracer: export.NewTracerProvider(cfg, spans).Tracer(names.ShimScope),
		state:  state.State{Version: state.Version, Dynamic: dynamic, Trace: state.NewTraceContext(sc), Started: t0},
	}
}

func TestDeleteTellsOfTheExit(t *testing.T) {
	for _, tt := range []struct {
		name     string
		response []byte
		attrs    []string
	}{
		{"nothing", nil, nil},
		{"killed", deleteResponse(42, 137, t0), []string{"process.pid=42", "process.exit.code=137"}},
		{"status 0", deleteResponse(42, 0, t0), []string{"process.pid=42", "process.exit.code=0"}},
		{"no exit", deleteResponse(42, 0, time.Time{}), []string{"process.pid=42"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newDeletion(t, false)
			began := state.Timing{Name: names.ShimDelete, Start: t0, End: t0.Add(9), Children: []state.Timing{{Name: names.InnerDelete, Start: t0, End: t0.Add(8)}}}
			recordDelete(w.tracer, &w.state, telemetry.ContainerAttributes("c1", nil), began, tt.response, nil)
			del, inner := w.One(names.ShimDelete), w.One(names.InnerDelete)
			if del.Parent().SpanID() != w.state.Trace.SpanContext().SpanID() || inner.Parent().SpanID() != del.SpanContext().SpanID() {
				t.Errorf("delete under %v, inner under %v", del.Parent(), inner.Parent())
			}
			wantAttrs := append([]string{"container.id=c1"}, tt.attrs...)
			shimtest.Want(t, del.Attributes(), wantAttrs...)
			shimtest.Want(t, inner.Attributes(), wantAttrs...)
		})
	}
}

// A relay that died leaves spans that delete makes in its place.
func TestDeleteRecordsWhatTheRelayCouldNot(t *testing.T) {
	w := newDeletion(t, false)
	left := w.state
	left.Pending = []state.Timing{{Name: names.ShimStart, Start: t0, End: t0.Add(1)}}
	recordDelete(w.tracer, &left, telemetry.ContainerAttributes("c1", nil), state.Timing{Name: names.ShimDelete, Start: t0.Add(5), End: t0.Add(6)}, nil, &w.state)
	start, root := w.One(names.ShimStart), w.One(names.SandboxStart)
	if start.Parent().SpanID() != root.SpanContext().SpanID() || root.Parent().IsValid() || !root.EndTime().Equal(t0.Add(5)) {
		t.Errorf("start under %v, root %v under %v until %v", start.Parent(), root.SpanContext(), root.Parent(), root.EndTime())
	}
}

// A failure of delete that is expected is no error.
func TestDeleteExpected(t *testing.T) {
	w := newDeletion(t, false)
	took := state.Timing{Name: names.InnerDelete, Start: t0, End: t0.Add(8), Error: "exit status 1", Expected: true}
	recordDelete(w.tracer, &w.state, nil, state.Timing{Name: names.ShimDelete, Start: t0, End: t0.Add(9), Error: took.Error, Expected: true, Children: []state.Timing{took}}, nil, nil)
	for _, name := range []string{names.ShimDelete, names.InnerDelete} {
		s := w.One(name)
		shimtest.Want(t, s.Attributes(), "shimtrace.expected=true", "shimtrace.expected.message=exit status 1")
		if s.Status().Code != codes.Unset {
			t.Errorf("%s: status %v", name, s.Status())
		}
	}
}

func TestDeleteInAWindow(t *testing.T) {
	at := t0.Add(time.Hour)
	open := &state.Window{Trace: state.NewTraceContext(caller7), Began: t0}
	for name, tt := range map[string]struct {
		win      *state.Window
		died     bool
		recorded bool
		reason   string
	}{
		"never on":            {nil, true, false, ""},
		"on":                  {open, false, true, ""},
		"on, relay died":      {open, true, true, "relay died"},
		"off":                 {&state.Window{Trace: open.Trace, Began: t0, Ended: t0.Add(1)}, true, false, ""},
		"expired":             {&state.Window{Trace: open.Trace, Began: t0, Until: t0.Add(1)}, false, false, ""},
		"expired, relay died": {&state.Window{Trace: open.Trace, Began: t0, Until: t0.Add(1)}, true, false, "time is over"},
		"with time left":      {&state.Window{Trace: open.Trace, Began: t0, Until: at.Add(1)}, true, true, "relay died"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newDeletion(t, true)
			st := w.state
			st.Window = tt.win
			st.Pending = []state.Timing{{Name: names.ShimStart, Start: t0, End: t0.Add(1)}}
			var gone *state.State
			if tt.died {
				gone = &st
			}
			recordDelete(w.tracer, &st, telemetry.ContainerAttributes("c1", nil), state.Timing{Name: names.ShimDelete, Start: at, End: at.Add(6)}, nil, gone)
			if got := len(w.Named(names.ShimDelete)); (got == 1) != tt.recorded || got != len(w.Named(names.ShimStart)) {
				t.Errorf("%d spans of delete", got)
			}
			for _, s := range w.Ended() {
				if s.Parent().SpanID() != caller7.SpanID() || s.SpanContext().TraceID() != caller7.TraceID() {
					t.Errorf("%q is under %v", s.Name(), s.Parent())
				}
			}
			if tt.reason == "" {
				if n := len(w.Named(names.SwitchedOff)); n != 0 {
					t.Errorf("%d ends", n)
				}
				return
			}
			shimtest.Want(t, w.One(names.SwitchedOff).Attributes(), "shimtrace.switched_off.reason="+tt.reason)
		})
	}
}
