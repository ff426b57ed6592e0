package receiver

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// The shapes of OTLP's messages, without those that parse reads itself.
var resourceSpansShape, scopeSpansShape, spanShape = func() (resourceSpans, scopeSpans, span *shape) {
	known := make(map[protoreflect.FullName]*shape)
	of := func(m protoreflect.ProtoMessage) *shape { return shapeOf(m.ProtoReflect().Descriptor(), known) }
	_, _ = of((*resourcepb.Resource)(nil)), of((*commonpb.KeyValue)(nil))
	return of((*tracepb.ResourceSpans)(nil)), of((*tracepb.ScopeSpans)(nil)), of((*tracepb.Span)(nil))
}()

// parsed is what a body contains.
type parsed struct {
	batches []Batch
	spans   int                   // in the batches
	lost    map[losses.Reason]int // invalid spans, which are left out

	body     []byte
	messages int
	end      int          // of the last batch in the body; -1: it is no view
	bad      map[int]bool // where the invalid spans are in the body
}

const (
	// maxService is the longest name of a service in bytes; longer ones are cut.
	maxService = 256
	// A body may not have more messages than spareMessages and one for each
	// messageBytes: decoded, each takes a hundred bytes, however few it has here. The
	// shortest attribute takes 9 bytes for two of them.
	messageBytes  = 4
	spareMessages = 1024
)

var errDense = errors.New("it has more parts than any program's spans")

// parse checks a body, an ExportTraceServiceRequest, and divides it by services without
// copying it. What is wrong within a span costs that span, anything else the whole
// body. The error does not quote it.
func parse(body []byte) (*parsed, error) {
	p := &parsed{body: body}
	for rest := body; len(rest) > 0; {
		at := rest
		number, v, after, err := next(rest)
		if err == nil && number == otlpwire.DataResourceSpans {
			err = p.resourceSpans(v, at[:len(at)-len(after)])
		}
		if err == nil && p.messages > spareMessages+len(body)/messageBytes {
			err = errDense
		}
		if err != nil {
			return nil, fmt.Errorf("malformed at byte %d or behind it: %w", p.offset(at), err)
		}
		rest = after
	}
	return p, nil
}

// offset returns where a view into the body begins.
func (p *parsed) offset(view []byte) int { return cap(p.body) - cap(view) }

// resourceSpans checks a ResourceSpans message; whole is its field in the body.
func (p *parsed) resourceSpans(b, whole []byte) error {
	p.messages++
	spans, bad, service := p.spans, len(p.bad), ""
	for len(b) > 0 {
		number, v, after, err := next(b)
		switch {
		case err != nil:
			return err
		case number == otlpwire.ResourceSpansScopes:
			err = p.scopeSpans(v)
		default:
			if err = resourceSpansShape.field(number).check(v, 0, &p.messages); err == nil && number == otlpwire.ResourceSpansResource {
				service = serviceOf(v)
			}
		}
		if err != nil {
			return err
		}
		b = after
	}
	switch n := p.spans - spans; {
	case n == 0:
	case len(p.bad) > bad:
		p.batches, p.end = append(p.batches, Batch{service, p.without(whole), n}), -1
	default:
		p.add(Batch{service, whole, n})
	}
	return nil
}

// add adds a view, to the last one if that ends there and is of the same service.
func (p *parsed) add(b Batch) {
	begin := p.offset(b.Data)
	if last := len(p.batches) - 1; last >= 0 && p.end == begin && p.batches[last].Service == b.Service {
		before := &p.batches[last]
		before.Data, before.Spans = before.Data[:len(before.Data)+len(b.Data)], before.Spans+b.Spans
	} else {
		p.batches = append(p.batches, b)
	}
	p.end = begin + len(b.Data)
}

func (p *parsed) scopeSpans(b []byte) error {
	p.messages++
	for len(b) > 0 {
		at := b
		number, v, after, err := next(b)
		switch {
		case err != nil:
			return err
		case number != otlpwire.ScopeSpansSpans:
			if err := scopeSpansShape.field(number).check(v, 0, &p.messages); err != nil {
				return err
			}
		default:
			if reason := p.span(v); reason != 0 {
				p.lose(reason, at)
			} else {
				p.spans++
			}
		}
		b = after
	}
	return nil
}

// lose notes an invalid span, whose field in the body begins at.
func (p *parsed) lose(reason losses.Reason, at []byte) {
	if p.bad == nil {
		p.bad, p.lost = make(map[int]bool), make(map[losses.Reason]int)
	}
	p.bad[p.offset(at)] = true
	p.lost[reason]++
}

// span checks a span and returns why it is lost, 0 if it is valid.
func (p *parsed) span(b []byte) losses.Reason {
	p.messages++
	var traceID, spanID []byte
	for len(b) > 0 {
		number, v, after, err := next(b)
		if err == nil {
			err = spanShape.field(number).check(v, 0, &p.messages)
		}
		switch {
		case errors.Is(err, errNotText):
			return losses.NotText
		case err != nil:
			return losses.Malformed
		case number == otlpwire.SpanTraceID:
			traceID = v
		case number == otlpwire.SpanSpanID:
			spanID = v
		}
		b = after
	}
	if zero(traceID) || zero(spanID) {
		return losses.NoIdentity
	}
	return 0
}

func zero(id []byte) bool {
	for _, c := range id {
		if c != 0 {
			return false
		}
	}
	return true
}

// without returns a valid ResourceSpans field without the invalid spans.
func (p *parsed) without(whole []byte) []byte {
	return p.rebuilt(nil, whole, []protowire.Number{otlpwire.DataResourceSpans, otlpwire.ResourceSpansScopes, otlpwire.ScopeSpansSpans})
}

// rebuilt appends a message to b, without the invalid spans at the end of the path.
func (p *parsed) rebuilt(b, message []byte, path []protowire.Number) []byte {
	for len(message) > 0 {
		number, v, after, err := next(message)
		if err != nil { // impossible: it was read before
			return b
		}
		field := message[:len(message)-len(after)]
		switch {
		case number != path[0]:
			b = append(b, field...)
		case len(path) > 1:
			b = protowire.AppendTag(b, number, protowire.BytesType)
			b = protowire.AppendBytes(b, p.rebuilt(nil, v, path[1:]))
		case !p.bad[p.offset(field)]:
			b = append(b, field...)
		}
		message = after
	}
	return b
}

// serviceOf returns a valid resource's service.name.
func serviceOf(resource []byte) string {
	for len(resource) > 0 {
		number, attribute, after, _ := next(resource)
		resource = after
		if number != otlpwire.ResourceAttributes {
			continue
		}
		var key, value []byte
		for len(attribute) > 0 {
			number, v, after, _ := next(attribute)
			attribute = after
			switch number {
			case otlpwire.KeyValueKey:
				key = v
			case otlpwire.KeyValueValue:
				value = v
			}
		}
		if string(key) != names.Service {
			continue
		}
		for len(value) > 0 {
			number, text, after, _ := next(value)
			value = after
			if number == otlpwire.AnyString {
				return string(span.CutText(text, maxService, true))
			}
		}
	}
	return ""
}
