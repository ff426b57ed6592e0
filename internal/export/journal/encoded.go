package journal

import (
	"errors"
	"fmt"
	"strings"

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
	if o.resource, err = proto.Marshal(resource); err != nil {
		o.resource, err = proto.Marshal(validResource(resource))
	}
	return o, err
}

// validResource returns a copy of a resource in which each text is UTF-8, as protobuf demands.
// Names of hosts and pods, environments and annotations need not be.
func validResource(r *resourcepb.Resource) *resourcepb.Resource {
	r = proto.Clone(r).(*resourcepb.Resource)
	valid := func(text *string) { *text = strings.ToValidUTF8(*text, "\uFFFD") }
	for _, attr := range r.Attributes {
		valid(&attr.Key)
		if v, ok := attr.Value.GetValue().(*commonpb.AnyValue_StringValue); ok {
			valid(&v.StringValue)
		}
	}
	return r
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
