package middleware_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/internal/errtext"
	"github.com/shimtrace/shimtrace/middleware"
)

// attrs returns the attributes of a span, by name.
func attrs(s sdktrace.ReadOnlySpan) map[string]any {
	m := map[string]any{}
	for _, kv := range s.Attributes() {
		m[string(kv.Key)] = kv.Value.AsInterface()
	}
	return m
}

// TestSpanOfACall is docs/spans.md.
func TestSpanOfACall(t *testing.T) {
	base := func(method, code string, more map[string]any) map[string]any {
		m := map[string]any{"rpc.system.name": "ttrpc", "rpc.method": method, "rpc.response.status_code": code}
		maps.Copy(m, more)
		return m
	}
	for name, tt := range map[string]struct {
		service, method string
		req, answer     proto.Message
		want            map[string]any
		message         string
	}{
		"create": {taskService, "Create", &task.CreateTaskRequest{ID: "box", Bundle: "/b"}, new(task.CreateTaskResponse),
			base("containerd.task.v3.Task/Create", "OK", map[string]any{"container.id": "box", "process.pid": int64(42)}), ""},
		"kill an exec": {taskService, "Kill", &task.KillRequest{ID: "box", ExecID: "sh", Signal: 9}, new(emptypb.Empty),
			base("containerd.task.v3.Task/Kill", "OK", map[string]any{"container.id": "box", "shimtrace.exec.id": "sh", "shimtrace.signal": int64(9)}), ""},
		"wait": {taskService, "Wait", &task.WaitRequest{ID: "box"}, new(task.WaitResponse),
			base("containerd.task.v3.Task/Wait", "OK", map[string]any{"container.id": "box", "process.exit.code": int64(137)}), ""},
		"exit status 0": {taskService, "Delete", &task.DeleteRequest{ID: "box"}, new(task.DeleteResponse),
			base("containerd.task.v3.Task/Delete", "OK", map[string]any{"container.id": "box", "process.pid": int64(42), "process.exit.code": int64(0)}), ""},
		"failed": {taskService, "State", &task.StateRequest{ID: "missing"}, new(task.StateResponse),
			base("containerd.task.v3.Task/State", "NOT_FOUND", map[string]any{"container.id": "missing", "error.type": "NOT_FOUND"}), `container "missing": not found`},
		"unimplemented": {taskService, "Dance", new(emptypb.Empty), new(emptypb.Empty),
			base("containerd.task.v3.Task/Dance", "UNIMPLEMENTED", map[string]any{"error.type": "UNIMPLEMENTED"}), "method Dance"},
		"unknown service": {"x.Y", "Z", wrapperspb.String("not an id"), new(emptypb.Empty),
			base("x.Y/Z", "UNIMPLEMENTED", map[string]any{"error.type": "UNIMPLEMENTED"}), "service x.Y"},
		"code of no name": {echoService, "Fail", wrapperspb.UInt32(99), new(emptypb.Empty),
			base(echoService+"/Fail", "CODE_99", map[string]any{"error.type": "CODE_99"}), "code 99"},
	} {
		t.Run(name, func(t *testing.T) {
			provider, rec := recorder()
			relayAddr, _ := relay(t, server(t), provider)
			before := time.Now()
			client(t, relayAddr).Call(context.Background(), tt.service, tt.method, tt.req, tt.answer)
			s := ended(t, rec, 1)[0]
			if s.Name() != tt.want["rpc.method"] || s.SpanKind() != trace.SpanKindServer || s.InstrumentationScope().Name != middleware.ScopeName {
				t.Errorf("span %q, %v, of %q", s.Name(), s.SpanKind(), s.InstrumentationScope().Name)
			}
			if got := attrs(s); !maps.Equal(got, tt.want) {
				t.Errorf("attributes %v, want %v", got, tt.want)
			}
			wantStatus := sdktrace.Status{}
			if tt.message != "" {
				wantStatus = sdktrace.Status{Code: codes.Error, Description: tt.message}
			}
			if s.Status() != wantStatus {
				t.Errorf("status %v, want %v", s.Status(), wantStatus)
			}
			if s.StartTime().Before(before) || s.EndTime().Before(s.StartTime()) || s.EndTime().After(time.Now()) {
				t.Errorf("span from %v to %v", s.StartTime(), s.EndTime())
			}
		})
	}
}

// TestStrangeText: what a peer calls things must be of bounded length and valid
// UTF-8, or the backend refuses all that is sent along.
func TestStrangeText(t *testing.T) {
	provider, rec := recorder()
	w := connect(t, provider)
	id := strings.Repeat("x", 5000) + "\xff"
	payload := append([]byte{0x0a, 3, 'a', 0xff, 'b', 0x12, byte(len(id)&0x7f | 0x80), byte(len(id) >> 7)}, id...)
	in := slices.Concat(
		// A service name and a container id that are not UTF-8.
		frame(1, 1, 0, append([]byte{0x0a, 2, 's', 0xfe, 0x12, 1, 'm'}, 0x1a, 0)),
		request(3, &ttrpc.Request{Service: taskService, Method: "State", Payload: payload}),
		request(5, &ttrpc.Request{Service: "s", Method: strings.Repeat("m", 1<<20)}),
		request(7, &ttrpc.Request{Service: taskService, Method: "State"}),
	)
	exchange(t, w.client, w.server, in, func() int { return 1 << 30 })
	exchange(t, w.server, w.client, slices.Concat(
		answer(1, &ttrpc.Response{}), answer(3, &ttrpc.Response{}), answer(5, &ttrpc.Response{}),
		// A message that is not UTF-8 and too long.
		frame(7, 2, 0, append([]byte{0x0a, 0x85, 0x40, 8, 5, 0x12, 0x80, 0x40}, strings.Repeat("\xfe.", 4096)...)),
	), func() int { return 1 << 30 })
	spans := ended(t, rec, 4)
	if got := spans[0].Name(); got != "s\uFFFD/m" {
		t.Errorf("name %q", got)
	}
	if got := attrs(spans[1]); got["container.id"] != "a\uFFFDb" || len(got["shimtrace.exec.id"].(string)) != 4096 {
		t.Errorf("attributes %.200v", got)
	}
	if got := len(spans[2].Name()); got > 1000 {
		t.Errorf("a name of %d bytes", got)
	}
	if got := spans[3].Status().Description; len(got) > errtext.Max || got != strings.ToValidUTF8(got, "") || got == "" {
		t.Errorf("status message of %d bytes: %.50q", len(got), got)
	}
}

// TestErrorsAreReduced: the client gets the whole of an answer, the span what may be said
// of it.
func TestErrorsAreReduced(t *testing.T) {
	const text = "failed to create: {\"env\":[\"SECRET=hunter2\"]} SECRET=hunter2: no such file\n\nStack backtrace:\n 0: hunter2"
	provider, rec := recorder()
	w := connect(t, provider)
	exchange(t, w.client, w.server, request(1, &ttrpc.Request{Service: taskService, Method: "Create"}), func() int { return 1 << 30 })
	answered := answer(1, &ttrpc.Response{Status: &status.Status{Code: 2, Message: text}})
	exchange(t, w.server, w.client, answered, func() int { return 1 << 30 })
	if got, want := ended(t, rec, 1)[0].Status().Description, "failed to create: {…} SECRET=…: no such file"; got != want {
		t.Errorf("the span says %q, want %q", got, want)
	}
}

func TestManyMethods(t *testing.T) {
	provider, rec := recorder()
	w := connect(t, provider)
	const n = 3000 // more than are remembered
	var in []byte
	for i := range uint32(n) {
		in = append(in, request(2*i+1, &ttrpc.Request{Service: "s", Method: strings.Repeat("m", int(i%1500))})...)
	}
	exchange(t, w.client, w.server, in, func() int { return 1 << 30 })
	w.server.Close()
	w.wait(t)
	ended(t, rec, n)
}

var (
	callerSpan  = spanContext(0xca, trace.FlagsSampled)
	sandboxSpan = spanContext(0x5a, trace.FlagsSampled)
)

func spanContext(id byte, flags trace.TraceFlags) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{id, 1}, SpanID: trace.SpanID{id, 2}, TraceFlags: flags, Remote: true,
	})
}

// knowing is an observer that knows where calls belong.
type knowing struct {
	middleware.NopObserver
	parent, link trace.SpanContext
}

func (k knowing) Parent(*middleware.Call) (parent, link trace.SpanContext) { return k.parent, k.link }

func TestParentAndLink(t *testing.T) {
	unsampledCaller, unsampledSandbox := callerSpan.WithTraceFlags(0), sandboxSpan.WithTraceFlags(0)
	inCaller := sandboxSpan.WithSpanID(callerSpan.SpanID())
	for name, tt := range map[string]struct {
		caller       trace.SpanContext
		observer     knowing
		parent, link trace.SpanContext
		dropped      bool
	}{
		"alone":                       {},
		"caller":                      {caller: callerSpan, parent: callerSpan},
		"observer":                    {observer: knowing{parent: sandboxSpan}, parent: sandboxSpan},
		"caller, linked":              {caller: callerSpan, observer: knowing{parent: callerSpan, link: sandboxSpan}, parent: callerSpan, link: sandboxSpan},
		"observer, linked":            {caller: callerSpan, observer: knowing{parent: sandboxSpan, link: callerSpan}, parent: sandboxSpan, link: callerSpan},
		"observer, not linked":        {caller: callerSpan, observer: knowing{parent: sandboxSpan}, parent: sandboxSpan},
		"a link without a parent":     {caller: callerSpan, observer: knowing{link: sandboxSpan}, parent: callerSpan},
		"unsampled caller":            {caller: unsampledCaller, dropped: true},
		"unsampled caller, linked":    {caller: unsampledCaller, observer: knowing{parent: sandboxSpan, link: unsampledCaller}, parent: sandboxSpan},
		"linked to an unsampled one":  {caller: callerSpan, observer: knowing{parent: callerSpan, link: unsampledSandbox}, parent: callerSpan},
		"linked to the parent itself": {caller: callerSpan, observer: knowing{parent: inCaller, link: callerSpan}, parent: inCaller},
		"both unsampled":              {caller: unsampledCaller, observer: knowing{parent: unsampledSandbox, link: unsampledCaller}, dropped: true},
	} {
		t.Run(name, func(t *testing.T) {
			provider, rec := recorder()
			addr, stop := relay(t, server(t), provider, propagators("tracecontext"),
				middleware.WithObserver(tt.observer))
			c := client(t, addr)
			md := seenBy(t, c, carrying(tt.caller))
			c.Close()
			stop()
			seen := trace.SpanContextFromContext(extract("tracecontext", md))
			if tt.dropped {
				if n := len(rec.Ended()); n > 0 || seen.IsSampled() {
					t.Errorf("%d spans, the server's context is %v", n, seen)
				}
				return
			}
			s := ended(t, rec, 1)[0]
			if s.Parent().SpanID() != tt.parent.SpanID() || tt.parent.IsValid() && s.SpanContext().TraceID() != tt.parent.TraceID() {
				t.Errorf("parent %v, want %v", s.Parent(), tt.parent)
			}
			var links []trace.SpanID
			for _, l := range s.Links() {
				links = append(links, l.SpanContext.SpanID())
			}
			if tt.link.IsValid() != (len(links) == 1) || tt.link.IsValid() && links[0] != tt.link.SpanID() {
				t.Errorf("links %v, want %v", links, tt.link)
			}
			if seen.SpanID() != s.SpanContext().SpanID() || seen.TraceID() != s.SpanContext().TraceID() || !seen.IsSampled() {
				t.Errorf("the server's context is %v, want %v", seen, s.SpanContext())
			}
		})
	}
}

// TestExpected: a failure that belongs to a healthy life is marked and no error, also of a
// quiet call; the rule is asked once, of calls that failed only.
func TestExpected(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		provider, rec := recorder()
		var asked []string
		opts := []middleware.Option{middleware.WithExpected(func(c *middleware.Call) bool {
			asked = append(asked, c.Method+" "+c.Code.String())
			return c.Method == "State"
		})}
		if quiet {
			opts = append(opts, middleware.WithQuiet(0, "State"))
		}
		addr, stop := relay(t, server(t), append(opts, provider)...)
		c := client(t, addr)
		c.Call(context.Background(), taskService, "State", &task.StateRequest{ID: "missing"}, new(task.StateResponse))
		c.Call(context.Background(), taskService, "Dance", new(emptypb.Empty), new(emptypb.Empty))
		c.Call(context.Background(), taskService, "Kill", &task.KillRequest{ID: "box"}, new(emptypb.Empty))
		c.Close()
		stop()
		spans := ended(t, rec, 3)
		want := map[string]any{
			"rpc.system.name": "ttrpc", "rpc.method": taskService + "/State", "rpc.response.status_code": "NOT_FOUND", "container.id": "missing",
			"shimtrace.expected": true, "shimtrace.expected.message": `container "missing": not found`,
		}
		if got := attrs(spans[0]); !maps.Equal(got, want) || spans[0].Status() != (sdktrace.Status{}) {
			t.Errorf("quiet %v: attributes %v, status %v; want %v and none", quiet, got, spans[0].Status(), want)
		}
		if got := attrs(spans[1]); got["shimtrace.expected"] != nil || got["error.type"] != "UNIMPLEMENTED" || spans[1].Status().Code != codes.Error {
			t.Errorf("quiet %v: attributes %v, status %v of a failure that is none of these", quiet, got, spans[1].Status())
		}
		if !slices.Equal(asked, []string{"State NOT_FOUND", "Dance UNIMPLEMENTED"}) {
			t.Errorf("quiet %v: asked %q", quiet, asked)
		}
	}
}
