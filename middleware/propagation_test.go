package middleware_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/middleware"
)

// carrying returns the metadata in which W3C puts a context, none for none.
func carrying(sc trace.SpanContext) ttrpc.MD {
	m := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), m)
	md := ttrpc.MD{}
	for k, v := range m {
		md.Set(k, v)
	}
	return md
}

// seenBy returns the metadata that the server sees of a call with md.
func seenBy(t *testing.T, c *ttrpc.Client, md ttrpc.MD) ttrpc.MD {
	t.Helper()
	var answer wrapperspb.BytesValue
	if err := c.Call(ttrpc.WithMetadata(context.Background(), md), echoService, "Metadata", new(emptypb.Empty), &answer); err != nil {
		t.Fatal(err)
	}
	var seen ttrpc.MD
	if err := json.Unmarshal(answer.Value, &seen); err != nil {
		t.Fatal(err)
	}
	return seen
}

// extract reads the context in md as a propagator of one form does that knows of
// no relay.
func extract(form string, md ttrpc.MD) context.Context {
	p, err := middleware.Propagator(form)
	if err != nil {
		panic(err)
	}
	m := propagation.MapCarrier{}
	for k, v := range md {
		m[k] = strings.Join(v, ",") // as the agent does
	}
	return p.Extract(context.Background(), m)
}

const (
	callerTrace = "ca010000000000000000000000000000"
	callerID    = "ca02000000000000"
)

func TestPropagation(t *testing.T) {
	w3c := "00-" + callerTrace + "-" + callerID + "-01"
	for name, tt := range map[string]struct {
		forms []string
		in    ttrpc.MD
		child bool     // the span is the caller's child
		keys  []string // that the server sees, each once
		same  []string // of them, those whose values are the request's
	}{
		"w3c":                  {[]string{"tracecontext"}, ttrpc.MD{"traceparent": {w3c}}, true, []string{"traceparent"}, nil},
		"w3c with state":       {[]string{"tracecontext"}, ttrpc.MD{"traceparent": {w3c}, "tracestate": {"vendor=1"}}, true, []string{"traceparent", "tracestate"}, []string{"tracestate"}},
		"w3c with states":      {[]string{"tracecontext"}, ttrpc.MD{"traceparent": {w3c}, "tracestate": {"vendor=1", "other=2,third=3"}}, true, []string{"traceparent", "tracestate"}, nil},
		"repeated":             {[]string{"tracecontext"}, ttrpc.MD{"traceparent": {w3c, w3c, "junk"}}, true, []string{"traceparent"}, nil},
		"other case":           {[]string{"tracecontext"}, ttrpc.MD{"TraceParent": {w3c}}, true, []string{"traceparent"}, nil},
		"many cases":           {[]string{"tracecontext"}, ttrpc.MD{"Traceparent": {w3c}, "TRACEPARENT": {w3c}, "Tracestate": {"a=b"}}, true, []string{"traceparent", "tracestate"}, nil},
		"malformed":            {[]string{"tracecontext"}, ttrpc.MD{"traceparent": {"00-junk"}, "tracestate": {"a=b"}}, false, []string{"traceparent"}, nil},
		"other metadata":       {[]string{"tracecontext"}, ttrpc.MD{"traceparent": {w3c}, "containerd-namespace-ttrpc": {"k8s.io"}, "Strange\x00": {"v"}}, true, []string{"Strange\x00", "containerd-namespace-ttrpc", "traceparent"}, []string{"Strange\x00", "containerd-namespace-ttrpc"}},
		"baggage as it came":   {[]string{"tracecontext", "baggage"}, ttrpc.MD{"traceparent": {w3c}, "baggage": {"user = al%20ice ; p=1, not baggage at all"}}, true, []string{"baggage", "traceparent"}, []string{"baggage"}},
		"foreign form":         {[]string{"tracecontext"}, ttrpc.MD{"b3": {callerTrace + "-" + callerID + "-1"}}, false, []string{"b3", "traceparent"}, []string{"b3"}},
		"jaeger":               {[]string{"jaeger"}, ttrpc.MD{"uber-trace-id": {callerTrace + ":" + callerID + ":0:1"}}, true, []string{"uber-trace-id"}, nil},
		"b3":                   {[]string{"b3"}, ttrpc.MD{"b3": {callerTrace + "-" + callerID + "-1"}}, true, []string{"b3"}, nil},
		"b3, not decided":      {[]string{"b3"}, ttrpc.MD{"b3": {callerTrace + "-" + callerID}}, false, nil, nil},
		"b3 of many":           {[]string{"b3"}, ttrpc.MD{"X-B3-TraceId": {callerTrace}, "X-B3-SpanId": {callerID}, "X-B3-Sampled": {"1"}, "X-B3-ParentSpanId": {"0000000000000001"}}, true, []string{"b3"}, nil},
		"b3multi":              {[]string{"b3multi"}, ttrpc.MD{"x-b3-traceid": {callerTrace}, "x-b3-spanid": {callerID}, "x-b3-sampled": {"1"}}, true, []string{"x-b3-sampled", "x-b3-spanid", "x-b3-traceid"}, nil},
		"b3multi of one":       {[]string{"b3multi"}, ttrpc.MD{"b3": {callerTrace + "-" + callerID + "-1"}}, true, []string{"x-b3-sampled", "x-b3-spanid", "x-b3-traceid"}, nil},
		"all":                  {[]string{"tracecontext", "jaeger", "b3", "b3multi"}, ttrpc.MD{"traceparent": {w3c}}, true, []string{"b3", "traceparent", "uber-trace-id", "x-b3-sampled", "x-b3-spanid", "x-b3-traceid"}, nil},
		"the last form wins":   {[]string{"b3", "tracecontext"}, ttrpc.MD{"traceparent": {w3c}, "b3": {strings.Repeat("9", 32) + "-" + callerID + "-1"}}, true, []string{"b3", "traceparent"}, nil},
		"nothing that came in": {[]string{"tracecontext"}, nil, false, []string{"traceparent"}, nil},
		"no form":              {[]string{"none"}, ttrpc.MD{"traceparent": {w3c}}, false, []string{"traceparent"}, []string{"traceparent"}},
	} {
		t.Run(name, func(t *testing.T) {
			provider, rec := recorder()
			addr, stop := relay(t, server(t), provider, propagators(tt.forms...))
			c := client(t, addr)
			seen := seenBy(t, c, tt.in)
			c.Close()
			stop()
			if tt.keys == nil { // the caller leaves it to us, and we do not sample what has no flag
				if n := len(rec.Ended()); n > 0 || !strings.HasPrefix(seen["b3"][0], callerTrace) {
					t.Errorf("%d spans, the server sees %v", n, seen)
				}
				return
			}
			s := ended(t, rec, 1)[0]
			if (s.Parent().SpanID().String() == callerID) != tt.child || (s.SpanContext().TraceID().String() == callerTrace) != tt.child {
				t.Errorf("parent %v", s.Parent())
			}
			if keys := slices.Sorted(maps.Keys(seen)); !slices.Equal(keys, tt.keys) {
				t.Errorf("the server sees %q, want %q", keys, tt.keys)
			}
			for key, values := range seen {
				if same := slices.Contains(tt.same, key); len(values) != 1 || same && values[0] != tt.in[key][0] {
					t.Errorf("%s = %q, was %q", key, values, tt.in[key])
				}
			}
			if all := strings.Join(tt.in["tracestate"], ","); tt.child && all != "" && all != strings.Join(seen["tracestate"], ",") {
				t.Errorf("the state %q went on as %q", all, seen["tracestate"])
			}
			for _, form := range tt.forms {
				if form == "none" || form == "baggage" {
					continue
				}
				if sc := trace.SpanContextFromContext(extract(form, seen)); sc.SpanID() != s.SpanContext().SpanID() || sc.TraceID() != s.SpanContext().TraceID() || !sc.IsSampled() {
					t.Errorf("%s carries %v, want %v", form, sc, s.SpanContext())
				}
			}
		})
	}
}

// TestPropagationOfDenial: a request that says by B3 that it is not to be traced is not,
// and says so further on, in every form.
func TestPropagationOfDenial(t *testing.T) {
	w3c := "00-" + callerTrace + "-" + callerID + "-01"
	for name, tt := range map[string]struct {
		forms []string
		in    ttrpc.MD
	}{
		"b3":             {[]string{"b3"}, ttrpc.MD{"b3": {"0"}}},
		"b3multi":        {[]string{"b3multi"}, ttrpc.MD{"X-B3-Sampled": {"0"}}},
		"b3multi, word":  {[]string{"b3multi"}, ttrpc.MD{"x-b3-sampled": {"false"}}},
		"into all forms": {[]string{"tracecontext", "jaeger", "b3", "b3multi"}, ttrpc.MD{"b3": {"0"}}},
		"of a context":   {[]string{"tracecontext", "b3"}, ttrpc.MD{"traceparent": {w3c}, "b3": {"0"}}},
		"with ids":       {[]string{"b3"}, ttrpc.MD{"b3": {callerTrace + "-" + callerID + "-0"}}},
	} {
		t.Run(name, func(t *testing.T) {
			provider, rec := recorder(sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())))
			addr, stop := relay(t, server(t), provider, propagators(tt.forms...))
			c := client(t, addr)
			seen := seenBy(t, c, tt.in)
			c.Close()
			stop()
			if n := len(rec.Ended()); n > 0 {
				t.Errorf("%d spans", n)
			}
			for _, form := range tt.forms {
				sc := trace.SpanContextFromContext(extract(form, seen))
				if !sc.IsValid() || sc.IsSampled() {
					t.Errorf("%s carries %v of %v", form, sc, seen)
				}
				if name == "of a context" && sc.TraceID().String() != callerTrace {
					t.Errorf("%s leaves the caller's trace: %v", form, sc)
				}
			}
		})
	}
}

// TestPropagationWithoutSpans: who records nothing hands on what came, and adds
// nothing where nothing came.
func TestPropagationWithoutSpans(t *testing.T) {
	addr, _ := relay(t, server(t), propagators("tracecontext", "baggage", "jaeger", "b3", "b3multi"))
	c := client(t, addr)
	if seen := seenBy(t, c, nil); len(seen) > 0 {
		t.Errorf("the server sees %v, want nothing", seen)
	}
	in := carrying(callerSpan)
	in.Set("baggage", "a=1")
	seen := seenBy(t, c, in)
	if seen["traceparent"][0] != in["traceparent"][0] || seen["baggage"][0] != "a=1" {
		t.Errorf("the server sees %v, want %v", seen, in)
	}
}

func TestPropagatorNames(t *testing.T) {
	if _, err := middleware.Propagator("tracecontext", "zipkin"); err == nil || !strings.Contains(err.Error(), `"zipkin"`) {
		t.Errorf("unknown propagator: %v", err)
	}
	p, err := middleware.Propagator("none")
	if err != nil || len(p.Fields()) > 0 {
		t.Errorf("none has fields %v, %v", p.Fields(), err)
	}
}
