package receiver

import (
	"cmp"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpshape"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// dataShape is the shape of the whole request: parse itself reads the only field
// that is known.
var dataShape otlpshape.Shape

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
	f, err := protofields.Of(body), error(nil)
	for err == nil && f.Next() {
		if f.Is(otlpwire.DataResourceSpans) {
			err = p.resourceSpans(f.Bytes, f.Whole())
		} else {
			err = dataShape.CheckField(&f, &p.messages)
		}
		if err == nil && p.messages > spareMessages+len(body)/messageBytes {
			err = errDense
		}
	}
	if err = cmp.Or(err, f.Err()); err != nil {
		return nil, fmt.Errorf("malformed at byte %d or behind it: %w", f.Start, err)
	}
	return p, nil
}

// offset returns where a view into the body begins.
func (p *parsed) offset(view []byte) int { return cap(p.body) - cap(view) }

// resourceSpans checks a ResourceSpans message; whole is its field in the body.
func (p *parsed) resourceSpans(b, whole []byte) error {
	p.messages++
	spans, bad, service := p.spans, len(p.bad), ""
	f := protofields.Of(b)
	for f.Next() {
		if f.Is(otlpwire.ResourceSpansScopes) {
			if err := p.scopeSpans(f.Bytes); err != nil {
				return err
			}
			continue
		}
		if err := otlpshape.ResourceSpans.CheckField(&f, &p.messages); err != nil {
			return err
		}
		if f.Is(otlpwire.ResourceSpansResource) {
			service = serviceOf(f.Bytes)
		}
	}
	if err := f.Err(); err != nil {
		return err
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

// add adds a batch that is a view. It extends the last batch if that one ends where
// the view begins and has the same service.
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
	f := protofields.Of(b)
	for f.Next() {
		if !f.Is(otlpwire.ScopeSpansSpans) {
			if err := otlpshape.ScopeSpans.CheckField(&f, &p.messages); err != nil {
				return err
			}
		} else if reason := p.span(f.Bytes); reason != 0 {
			p.lose(reason, f.Whole())
		} else {
			p.spans++
		}
	}
	return f.Err()
}

// lose notes an invalid span; at is the span's field, a view into the body.
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
	f := protofields.Of(b)
	for f.Next() {
		switch err := otlpshape.Span.CheckField(&f, &p.messages); {
		case errors.Is(err, otlpshape.ErrNotText):
			return losses.NotText
		case err != nil:
			return losses.Malformed
		case f.Is(otlpwire.SpanTraceID):
			traceID = f.Bytes
		case f.Is(otlpwire.SpanSpanID):
			spanID = f.Bytes
		}
	}
	if f.Err() != nil {
		return losses.Malformed
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
	for f := protofields.Of(message); f.Next(); {
		switch {
		case !f.Is(path[0]):
			b = append(b, f.Whole()...)
		case len(path) > 1:
			b = otlpwire.AppendBytes(b, f.Number, p.rebuilt(nil, f.Bytes, path[1:]))
		case !p.bad[p.offset(f.Whole())]:
			b = append(b, f.Whole()...)
		}
	}
	return b
}

// serviceOf returns a valid resource's service.name.
func serviceOf(resource []byte) string {
	for f := protofields.Of(resource); f.Next(); {
		if f.Is(otlpwire.ResourceAttributes) && string(protofields.Last(f.Bytes, otlpwire.KeyValueKey)) == names.Service {
			text := protofields.Last(protofields.Last(f.Bytes, otlpwire.KeyValueValue), otlpwire.AnyString)
			return string(span.CutText(text, maxService, true))
		}
	}
	return ""
}
