package journal

import (
	"errors"
	"fmt"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// Field numbers of opentelemetry/proto/trace/v1/trace.proto and common/v1/common.proto.
const (
	tracesResourceSpans protowire.Number = 1
	rsResource          protowire.Number = 1
	rsScopeSpans        protowire.Number = 2
	ssScope             protowire.Number = 1
	scopeName           protowire.Number = 1
)

// origin is the encoded resource and scope of spans.
type origin struct {
	resource []byte // the message
	scope    []byte
	source   Source
}

func newOrigin(resource *resourcepb.Resource, scope string) (o origin, err error) {
	o.source = sourceOf(resource)
	o.scope = appendField(nil, scopeName, mendText(scope))
	if o.resource, err = proto.Marshal(resource); err != nil {
		valid, _ := validText(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{Resource: resource}}})
		o.resource, err = proto.Marshal(valid.ResourceSpans[0].Resource)
	}
	return o, err
}

// appendEncoded appends spans, in halves if they are too large for a record.
func (j *Journal) appendEncoded(o origin, spans []byte, n int) error {
	scopeSpans := fieldLen(len(o.scope)) + len(spans)
	resourceSpans := fieldLen(len(o.resource)) + fieldLen(scopeSpans)
	size := fieldLen(resourceSpans)
	if size > j.maxPayload() {
		if n == 1 {
			j.lose(losses.TooLarge, 1)
			return fmt.Errorf("journal: a span of %d bytes is too large, at most %d are possible", size, j.maxPayload())
		}
		half := 0
		for range n / 2 {
			_, _, length := protowire.ConsumeField(spans[half:])
			if length < 0 {
				j.lose(losses.WriteFailed, n)
				return fmt.Errorf("journal: %d spans are fewer, or malformed: %w", n, protowire.ParseError(length))
			}
			half += length
		}
		return errors.Join(j.appendEncoded(o, spans[:half], n/2), j.appendEncoded(o, spans[half:], n-n/2))
	}
	payload := appendHead(j.room(size), tracesResourceSpans, resourceSpans)
	payload = appendField(payload, rsResource, o.resource)
	payload = appendHead(payload, rsScopeSpans, scopeSpans)
	payload = appendField(payload, ssScope, o.scope)
	payload = append(payload, spans...)
	if err := j.append(KindTraces, o.source, n, payload); err != nil {
		j.lose(reasonOf(err), n)
		return err
	}
	return nil
}

// fieldLen is the length of a field of n bytes.
func fieldLen(n int) int { return 1 + protowire.SizeBytes(n) }

func appendHead(b []byte, field protowire.Number, length int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(length))
}

func appendField[T string | []byte](b []byte, field protowire.Number, v T) []byte {
	return append(appendHead(b, field, len(v)), v...)
}
