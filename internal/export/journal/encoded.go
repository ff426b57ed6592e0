package journal

import (
	"errors"
	"fmt"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// origin is the encoded resource and scope of spans.
type origin struct {
	resource []byte // the message
	scope    []byte
	source   Source
}

func newOrigin(resource *resourcepb.Resource, scope string) (o origin, err error) {
	o.source = sourceOf(resource)
	o.scope = otlpwire.AppendText(nil, otlpwire.ScopeName, scope)
	if o.resource = encodeTexts(resource); o.resource == nil {
		o.resource, err = proto.Marshal(resource)
	}
	return o, err
}

// encodeTexts encodes a resource that has only texts, as all of ours do; it returns nil for
// another. Package proto would make tables of the messages first, in each relay. Names of hosts
// and pods, environments and annotations need not be UTF-8, as protobuf demands; here they are.
func encodeTexts(r *resourcepb.Resource) (b []byte) {
	if r.GetDroppedAttributesCount() != 0 || len(r.GetEntityRefs()) > 0 {
		return nil
	}
	for _, attr := range r.GetAttributes() {
		var attribute, value int
		b, attribute = otlpwire.Open(b, otlpwire.ResourceAttributes)
		b = otlpwire.AppendText(b, otlpwire.KeyValueKey, attr.Key)
		switch v := attr.GetValue().GetValue().(type) {
		case nil:
		case *commonpb.AnyValue_StringValue:
			b, value = otlpwire.Open(b, otlpwire.KeyValueValue)
			b = otlpwire.AppendText(b, otlpwire.AnyString, v.StringValue)
			b = otlpwire.Close(b, value)
		default:
			return nil
		}
		b = otlpwire.Close(b, attribute)
	}
	return b
}

// appendEncoded appends spans, in halves if they are too large for a record.
func (j *Journal) appendEncoded(o origin, spans []byte, n int) error {
	scopeSpans := otlpwire.FieldLen(len(o.scope)) + len(spans)
	resourceSpans := otlpwire.FieldLen(len(o.resource)) + otlpwire.FieldLen(scopeSpans)
	size := otlpwire.FieldLen(resourceSpans)
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
	payload := otlpwire.AppendHead(j.room(size), otlpwire.DataResourceSpans, resourceSpans)
	payload = otlpwire.AppendBytes(payload, otlpwire.ResourceSpansResource, o.resource)
	payload = otlpwire.AppendHead(payload, otlpwire.ResourceSpansScopes, scopeSpans)
	payload = otlpwire.AppendBytes(payload, otlpwire.ScopeSpansScope, o.scope)
	payload = append(payload, spans...)
	if err := j.append(KindTraces, o.source, n, payload); err != nil {
		j.lose(reasonOf(err), n)
		return err
	}
	return nil
}
