package shim

import (
	"testing"
	"time"

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
			w := newWorld(t, middleware.JoinCaller)
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
	w := newWorld(t, middleware.JoinCaller)
	left := w.state
	left.Pending = []timing{{Name: spanShimStart, Start: t0, End: t0.Add(1)}}
	recordDelete(&telemetry{tracer: w.tracer}, &left, containerAttributes("c1", nil), timing{Name: spanShimDelete, Start: t0.Add(5), End: t0.Add(6)}, nil, &w.state)
	start, root := w.one(spanShimStart), w.one(spanSandboxStart)
	if start.Parent().SpanID() != root.SpanContext().SpanID() || root.Parent().IsValid() || !root.EndTime().Equal(t0.Add(5)) {
		t.Errorf("start under %v, root %v under %v until %v", start.Parent(), root.SpanContext(), root.Parent(), root.EndTime())
	}
}
