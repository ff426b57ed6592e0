package waterfall

import (
	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// codeError is STATUS_CODE_ERROR (opentelemetry/proto/trace/v1/trace.proto).
const codeError = 2

// reader reads TracesData messages. It remembers resources, which recur.
type reader struct {
	others bool // the messages are other programs'
	known  map[string]*resource
	bytes  int
	last   *resource
}

// Bounds of what a reader remembers. At a bound it starts anew.
const (
	maxResources     = 1024
	maxResourceBytes = 1 << 20
)

// each calls f for every span of a TracesData message. The span's bytes are valid until
// each returns.
func (r *reader) each(data []byte, f func(res *resource, by Maker, span []byte)) error {
	top := protofields.Of(data)
	for top.Next() {
		if !top.Is(otlpwire.DataResourceSpans) {
			continue
		}
		res := r.resource(protofields.Last(top.Bytes, otlpwire.ResourceSpansResource))
		scopes := protofields.Of(top.Bytes)
		for scopes.Next() {
			if !scopes.Is(otlpwire.ResourceSpansScopes) {
				continue
			}
			by := res.maker(protofields.Last(protofields.Last(scopes.Bytes, otlpwire.ScopeSpansScope), otlpwire.ScopeName))
			spans := protofields.Of(scopes.Bytes)
			for spans.Next() {
				if spans.Is(otlpwire.ScopeSpansSpans) {
					f(res, by, spans.Bytes)
				}
			}
			if err := spans.Err(); err != nil {
				return err
			}
		}
		if err := scopes.Err(); err != nil {
			return err
		}
	}
	return top.Err()
}

func (r *reader) resource(msg []byte) *resource {
	if r.last != nil && r.last.raw == string(msg) {
		return r.last
	}
	res := r.known[string(msg)]
	if res == nil {
		if r.known == nil || len(r.known) >= maxResources || r.bytes+len(msg) > maxResourceBytes {
			r.known, r.bytes = make(map[string]*resource), 0
		}
		if res = newResource(msg); r.others {
			res.disown()
		}
		r.known[res.raw] = res
		r.bytes += len(msg)
	}
	r.last = res
	return res
}
