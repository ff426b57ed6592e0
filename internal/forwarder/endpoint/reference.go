package endpoint

import (
	"github.com/apache/thrift/lib/go/thrift"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// reference is a SpanRef of jaeger.thrift.
type reference struct {
	traceID [16]byte
	spanID  [8]byte
	childOf bool
}

// maxReferences bounds a span's references that are searched for its parent. Exporters
// write the parent as a field, and no references.
const maxReferences = 128

// references reads the references of the current span.
func (d *decoder) references(r *reader) {
	for n := r.list(thrift.STRUCT); n > 0 && r.err == nil; n-- {
		var ref reference
		for {
			id, is, more := r.field()
			if !more {
				break
			}
			switch {
			case id == 1 && is == thrift.I32:
				ref.childOf = r.i32() == 0
			case id == 2 && is == thrift.I64:
				putID(ref.traceID[8:], r.i64())
			case id == 3 && is == thrift.I64:
				putID(ref.traceID[:8], r.i64())
			case id == 4 && is == thrift.I64:
				putID(ref.spanID[:], r.i64())
			default:
				r.skip(is)
			}
		}
		if len(d.refs) < maxReferences {
			d.refs = append(d.refs, ref)
		} else {
			d.link(ref)
		}
	}
}

func (d *decoder) link(ref reference) {
	d.builder.BeginLink()
	d.builder.LinkContext(ref.traceID, ref.spanID, nil, 0)
	d.builder.EndLink()
}

// refer sets the span's parent if only a reference names it, and makes links of the
// other references.
func (d *decoder) refer(s *span.Span) {
	for _, ref := range d.refs {
		if ref.childOf && ref.traceID == s.TraceID {
			if s.ParentID == [8]byte{} {
				s.ParentID = ref.spanID
			}
			if s.ParentID == ref.spanID {
				continue
			}
		}
		d.link(ref)
	}
}
