package middleware

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// byAPI hides that a provider's tracers are direct.
type byAPI struct{ trace.TracerProvider }

func (p byAPI) Tracer(name string, opts ...trace.TracerOption) trace.Tracer {
	return struct{ trace.Tracer }{p.TracerProvider.Tracer(name, opts...)}
}

// one is a sink of one span.
type one []byte

func (o *one) Take(_ string, span export.Ended) { *o = span.AppendElement(nil) }

// under is an observer that knows the parent, and a link.
type under struct {
	NopObserver
	parent, link trace.SpanContext
}

func (u under) Parent(*Call) (parent, link trace.SpanContext) { return u.parent, u.link }

// FuzzDirect: what becomes of a request, and of its span, is the same whether or not the objects
// of OpenTelemetry's API are taken.
func FuzzDirect(f *testing.F) {
	const usual = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
	for i, value := range []string{
		"", usual + "1", usual + "0", usual + "2", usual + "3", usual + "4", usual + "g", usual + "1-", "01" + usual[2:] + "1-more", "ff" + usual[2:] + "1",
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		for _, key := range []string{"traceparent", "TraceParent", "tracestate", "baggage", "other"} {
			f.Add(value, key, usual+"1", "vendor=1", byte(i))
		}
	}
	propagator, err := Propagator("tracecontext", "baggage")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value, key, second, state string, how byte) {
		metadata := []*ttrpc.KeyValue{{Key: key, Value: value}, {Key: "traceparent", Value: second}, {Key: "tracestate", Value: state}}
		envelope, err := proto.Marshal(&ttrpc.Request{
			Service: "containerd.task.v3.Task", Method: "Start", Payload: []byte("\x0a\x03box"), Metadata: metadata[:1+how%3],
		})
		if err != nil {
			return // no text
		}
		cfg := config.Default().Trace
		if how&4 != 0 {
			cfg.Sampler = "parentbased_always_off"
		}
		var observer under
		if how&8 != 0 {
			observer.parent = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
			observer.link = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2 + how>>7}, TraceFlags: trace.FlagsSampled})
		}
		if how&16 != 0 {
			vendors, _ := trace.ParseTraceState(state)
			observer.parent = observer.parent.WithTraceState(vendors)
		}
		quiet := WithQuiet(0)
		if how&32 != 0 {
			quiet = WithQuiet(0, "Start")
		}
		var results [2]string
		for i := range results {
			var sink one
			var provider trace.TracerProvider = export.NewTracerProvider(cfg, &sink)
			if i == 1 {
				provider = byAPI{provider}
			}
			c := &conn{spans: NewRelay(WithTracerProvider(provider), WithPropagator(propagator), WithObserver(observer), quiet).spans}
			rq := requests{conn: c}
			call := rq.trace(wire.Header{Length: uint32(len(envelope))}, envelope, 0)
			if call == nil {
				return
			}
			sc := call.SpanContext()
			parts := bytes.Join(rq.parts, nil)
			c.calls.take(0)
			call.ended(call.Start)
			call.Code, call.Message = Code(how>>6), "no"
			c.end(call)
			link := trace.SpanContext{}
			if call.link != nil {
				link = *call.link
			}
			results[i] = fmt.Sprintf("caller %+v, parent %+v, link %+v, flags %v, state %q, in the trace %v\nrequest %q\nspan %q",
				call.Caller, call.Parent, link, sc.TraceFlags(), sc.TraceState(), sc.TraceID() == call.Parent.TraceID(),
				without(parts, call), without(sink, call))
		}
		if results[0] != results[1] {
			t.Errorf("directly\n%s\nby the API\n%s", results[0], results[1])
		}
	})
}

// without is bytes without a call's ids and time, which are others each time.
func without(b []byte, c *Call) []byte {
	sc := c.SpanContext()
	traceID, spanID := sc.TraceID(), sc.SpanID()
	at := protowire.AppendFixed64(nil, uint64(c.Start.UnixNano()))
	for _, id := range [][]byte{traceID[:], spanID[:], at} {
		b = bytes.ReplaceAll(b, id, make([]byte, len(id)))
		b = bytes.ReplaceAll(b, hex.AppendEncode(nil, id), make([]byte, 2*len(id)))
	}
	return b
}
