package shim

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/middleware"
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
			w := newWorld(t, false)
			began := timing{Name: spanShimDelete, Start: t0, End: t0.Add(9), Children: []timing{{Name: spanInnerDelete, Start: t0, End: t0.Add(8)}}}
			recordDelete(&telemetry{tracer: w.tracer}, &w.state, containerAttributes("c1", nil), began, tt.response, nil)
			del, inner := w.one(spanShimDelete), w.one(spanInnerDelete)
			if del.Parent().SpanID() != w.root().SpanID() || inner.Parent().SpanID() != del.SpanContext().SpanID() {
				t.Errorf("delete under %v, inner under %v", del.Parent(), inner.Parent())
			}
			wantAttrs := append([]string{"container.id=c1"}, tt.attrs...)
			want(t, del.Attributes(), wantAttrs...)
			want(t, inner.Attributes(), wantAttrs...)
		})
	}
}

// A relay that died leaves spans that delete makes in its place.
func TestDeleteRecordsWhatTheRelayCouldNot(t *testing.T) {
	w := newWorld(t, false)
	left := w.state
	left.Pending = []timing{{Name: spanShimStart, Start: t0, End: t0.Add(1)}}
	recordDelete(&telemetry{tracer: w.tracer}, &left, containerAttributes("c1", nil), timing{Name: spanShimDelete, Start: t0.Add(5), End: t0.Add(6)}, nil, &w.state)
	start, root := w.one(spanShimStart), w.one(spanSandboxStart)
	if start.Parent().SpanID() != root.SpanContext().SpanID() || root.Parent().IsValid() || !root.EndTime().Equal(t0.Add(5)) {
		t.Errorf("start under %v, root %v under %v until %v", start.Parent(), root.SpanContext(), root.Parent(), root.EndTime())
	}
}

// TestDeleteExpected: a container that was deleted by the call leaves that in its bundle,
// and a failure of delete that is expected then is no error.
func TestDeleteExpected(t *testing.T) {
	w := newWorld(t, false)
	w.create(trace.SpanContext{})
	read := func() *state {
		st, err := readState(filepath.Join(w.bundle, stateFile))
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	w.Answered(&middleware.Call{Method: "Delete", ContainerID: "c1", ExecID: "e"})
	w.Answered(&middleware.Call{Method: "Delete", ContainerID: "c1", Code: 2})
	if read().Deleted {
		t.Error("it was not deleted yet")
	}
	w.Answered(&middleware.Call{Method: "Delete", ContainerID: "c1"})
	if st := read(); !st.Deleted || st.Trace != w.state.Trace {
		t.Errorf("state %+v", st)
	}
	took := timing{Name: spanInnerDelete, Start: t0, End: t0.Add(8), Error: "exit status 1", Expected: true}
	recordDelete(&telemetry{tracer: w.tracer}, &w.state, nil, timing{Name: spanShimDelete, Start: t0, End: t0.Add(9), Error: took.Error, Expected: true, Children: []timing{took}}, nil, nil)
	for _, name := range []string{spanShimDelete, spanInnerDelete} {
		s := w.one(name)
		want(t, s.Attributes(), "shimtrace.expected=true", "shimtrace.expected.message=exit status 1")
		if s.Status().Code != codes.Unset {
			t.Errorf("%s: status %v", name, s.Status())
		}
	}
}

// TestExpectedOfSandbox: what is asked of a container before it is there is not why it
// did not start.
func TestExpectedOfSandbox(t *testing.T) {
	w := newWorld(t, false)
	early := &middleware.Call{Method: "State", ContainerID: "c1", Code: 5, Message: "not created"}
	early.Expected = w.lives.Expected(early)
	w.Answered(early)
	w.neverStarted(t0.Add(time.Second))
	if s := w.one(spanSandboxStart); !early.Expected || strings.Contains(s.Status().Description, "not created") {
		t.Errorf("expected %v, status %v", early.Expected, s.Status())
	}
}
