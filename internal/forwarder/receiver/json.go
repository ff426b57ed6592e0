package receiver

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/http"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/post"
	"github.com/shimtrace/shimtrace/internal/losses"
)

const (
	// maxNesting bounds how deep JSON may be nested.
	maxNesting = 64
	// objectCost is what an object in JSON may take as a message, in bytes.
	objectCost = 384
)

// fromJSON turns a body in JSON into one in protobuf, which is shorter.
func (r *Receiver) fromJSON(body []byte) ([]byte, *post.Refusal) {
	cost := 4*len(body) + objectCost*bytes.Count(body, []byte("{"))
	if cost > r.opts.RoomBytes {
		return nil, &post.Refusal{Reason: losses.OversizedPost, Status: http.StatusRequestEntityTooLarge, Text: "the JSON takes too much memory"}
	}
	if !r.room.Reserve(cost) {
		return nil, post.ErrBusy
	}
	defer r.room.Release(cost)
	malformed := &post.Refusal{Reason: losses.MalformedPost, Status: http.StatusBadRequest, Text: "the body is not OTLP's JSON"}
	t := new(tracepb.TracesData)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxNesting}).Unmarshal(body, t); err != nil {
		return nil, malformed // the error may quote the body
	}
	for _, rs := range t.ResourceSpans {
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				mendIDs(&s.TraceId, &s.SpanId, &s.ParentSpanId)
				for _, l := range s.GetLinks() {
					mendIDs(&l.TraceId, &l.SpanId)
				}
			}
		}
	}
	message, err := proto.Marshal(t)
	if err != nil {
		return nil, malformed
	}
	return message, nil
}

// mendIDs repairs ids that were read as base64, the form that protobuf's JSON has for
// bytes. In OTLP's JSON they are hexadecimal. Since these digits are digits of base64
// as well, and the ids' lengths are multiples of 4, nothing of them is lost. What was
// not hexadecimal becomes an invalid id.
func mendIDs(ids ...*[]byte) {
	for _, id := range ids {
		if len(*id) == 0 {
			continue
		}
		digits := base64.StdEncoding.EncodeToString(*id)
		raw, err := hex.DecodeString(digits)
		if err != nil {
			raw = []byte{0}
		}
		*id = raw
	}
}
