package middleware

import (
	"context"
	"encoding/hex"
	"slices"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

// w3c is W3C Trace Context, with or without baggage. A relay lets a request's own baggage
// pass.
type w3c struct{ propagation.TextMapPropagator }

// isW3C reports whether these forms are W3C Trace Context, with or without baggage.
func isW3C(names []string) bool {
	return slices.Contains(names, "tracecontext") && !slices.ContainsFunc(names, func(name string) bool {
		return name != "tracecontext" && name != "baggage" && name != "none"
	})
}

// traceDirect starts the span of a call and writes its context where neither takes the objects
// of OpenTelemetry's API, and reports whether it has. That is most requests: they have a
// context in W3C's usual form, or none.
func (r *requests) traceDirect(c *Call) bool {
	if r.direct == nil || !c.method.settings.w3c {
		return false
	}
	caller, ok := usualContext(r.req.Metadata)
	if !ok {
		return false
	}
	sc := r.beginDirect(caller, c)
	if sc.TraceState().Len() > 0 {
		c.method.settings.propagator.Inject(trace.ContextWithSpanContext(context.Background(), sc), &r.carry)
	} else {
		r.carry.setParent(sc)
	}
	return true
}

// usualContext returns the context that a request has, and whether it is in the usual form or
// there is none. What vendors add is not usual.
func usualContext(all []wire.Metadata) (sc trace.SpanContext, ok bool) {
	found := false
	for i := range all {
		switch key := all[i].Key; {
		case equalFold(key, stateKey):
			return trace.SpanContext{}, false
		case !found && equalFold(key, parentKey):
			if sc, found = parseParent(all[i].Value); !found {
				return trace.SpanContext{}, false
			}
		}
	}
	return sc, true
}

// parentKey is W3C's key for the ids of a context
// (https://www.w3.org/TR/trace-context-1/#traceparent-header).
const parentKey = "traceparent"

const (
	parentLen = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") // in version 0
	flagsSet  = trace.FlagsSampled | trace.FlagsRandom                         // that are W3C's
)

// parseParent reads ids and flags in version 0 of W3C's form.
func parseParent(b []byte) (sc trace.SpanContext, ok bool) {
	var cfg trace.SpanContextConfig
	var flags [1]byte
	if len(b) != parentLen || string(b[:3]) != "00-" || b[35] != '-' || b[52] != '-' ||
		!decodeHex(cfg.TraceID[:], b[3:]) || !decodeHex(cfg.SpanID[:], b[36:]) || !decodeHex(flags[:], b[53:]) {
		return sc, false
	}
	cfg.TraceFlags, cfg.Remote = trace.TraceFlags(flags[0]), true
	sc = trace.NewSpanContext(cfg)
	return sc, sc.IsValid() && cfg.TraceFlags&^flagsSet == 0
}

// decodeHex fills to with the digits that b begins with, and reports whether all of them are
// in lower case, as W3C has them.
func decodeHex(to, b []byte) bool {
	for i := range to {
		high, low := digit(b[2*i]), digit(b[2*i+1])
		if high|low > 0xf {
			return false
		}
		to[i] = high<<4 | low
	}
	return true
}

func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// setParent writes a context without what vendors add.
func (c *carrier) setParent(sc trace.SpanContext) {
	traceID, spanID := sc.TraceID(), sc.SpanID()
	from := len(c.text)
	b := append(c.text, "00-"...)
	b = append(hex.AppendEncode(b, traceID[:]), '-')
	b = append(hex.AppendEncode(b, spanID[:]), '-')
	c.text = hex.AppendEncode(b, []byte{byte(sc.TraceFlags() & flagsSet)})
	c.set = append(c.set, entry{parentKey, c.text[from:]})
}
