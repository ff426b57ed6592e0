package agentconfig

import (
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/middleware"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// message encodes fields, by number: texts and numbers.
func message(fields map[protowire.Number]any) (b []byte) {
	for _, num := range slices.Sorted(maps.Keys(fields)) {
		switch v := fields[num].(type) {
		case string:
			b = protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), v)
		case int:
			b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(v))
		}
	}
	return b
}

// send sends a message in a frame of stream 1, which the relay reads from end to end.
func send(t *testing.T, to net.Conn, kind wire.FrameType, msg proto.Message) {
	t.Helper()
	b, err := proto.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	frame := append(wire.Header{Length: uint32(len(b)), Stream: 1, Type: kind}.Append(nil), b...)
	sent := make(chan error, 1)
	go func() { _, err := to.Write(frame); sent <- err }()
	t.Cleanup(func() {
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// receive reads a frame.
func receive(t *testing.T, from net.Conn) {
	t.Helper()
	head := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(from, head); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, from, int64(wire.ParseHeader(head).Length)); err != nil {
		t.Fatal(err)
	}
}

// asked is what a relay makes of one request to the agent and its answer, which is
// nil if the agent closes the connection instead.
func asked(t *testing.T, method string, payload []byte, resp *ttrpc.Response, opts ...middleware.Option) []string {
	t.Helper()
	rec := tracetest.NewSpanRecorder()
	relay := middleware.NewRelay(append(opts,
		middleware.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))),
		middleware.WithSpanKind(trace.SpanKindClient), middleware.WithMethods(Method))...)
	runtime, in := net.Pipe()
	out, agent := net.Pipe()
	var relaying sync.WaitGroup
	relaying.Go(func() { relay.Connect(in, out) })
	send(t, runtime, wire.TypeRequest, &ttrpc.Request{Service: kata.AgentService, Method: method, Payload: payload, TimeoutNano: int64(time.Hour)})
	receive(t, agent)
	if resp != nil {
		send(t, agent, wire.TypeResponse, resp)
		receive(t, runtime)
	}
	agent.Close()
	relaying.Wait()
	runtime.Close()
	var told []string
	for _, s := range rec.Ended() {
		if s.SpanKind() != trace.SpanKindClient || s.Name() != kata.AgentService+"/"+method {
			t.Errorf("span %s, %v", s.Name(), s.SpanKind())
		}
		told = append(told, "status "+s.Status().Code.String())
		for _, kv := range s.Attributes() {
			told = append(told, string(kv.Key)+"="+kv.Value.String())
		}
	}
	slices.Sort(told)
	return told
}

// TestAgentRequests is what a span says of a request to the Kata agent.
func TestAgentRequests(t *testing.T) {
	ok := new(ttrpc.Response)
	process := message(map[protowire.Number]any{1: "c1", 2: "sh"})
	for name, tt := range map[string]struct {
		method  string
		payload []byte
		resp    *ttrpc.Response
		want    []string
	}{
		"sandbox": {"CreateSandbox", message(map[protowire.Number]any{1: "host", 5: "pod"}), ok,
			[]string{"rpc.response.status_code=OK", "shimtrace.sandbox.id=pod"}},
		"container, first process": {"CreateContainer", message(map[protowire.Number]any{1: "c1", 2: "c1"}), ok,
			[]string{"container.id=c1", "rpc.response.status_code=OK"}},
		"exec": {"ExecProcess", process, ok,
			[]string{"container.id=c1", "rpc.response.status_code=OK", "shimtrace.exec.id=sh"}},
		"signal": {"SignalProcess", message(map[protowire.Number]any{1: "c1", 2: "c1", 3: 15}), ok,
			[]string{"container.id=c1", "rpc.response.status_code=OK", "shimtrace.signal=15"}},
		"exit": {"WaitProcess", process, &ttrpc.Response{Payload: message(map[protowire.Number]any{1: 137})},
			[]string{"container.id=c1", "process.exit.code=137", "rpc.response.status_code=OK", "shimtrace.exec.id=sh"}},
		"exit status 0": {"WaitProcess", process, ok,
			[]string{"container.id=c1", "process.exit.code=0", "rpc.response.status_code=OK", "shimtrace.exec.id=sh"}},
		"no container": {"GetGuestDetails", message(map[protowire.Number]any{1: 1, 2: 1}), ok,
			[]string{"rpc.response.status_code=OK"}},
		"the end": {"DestroySandbox", nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			want := append(tt.want, "rpc.method="+kata.AgentService+"/"+tt.method, "rpc.system.name=ttrpc", "status "+codes.Unset.String())
			slices.Sort(want)
			if got := asked(t, tt.method, tt.payload, tt.resp); !slices.Equal(got, want) {
				t.Errorf("the span says %q, want %q", got, want)
			}
		})
	}
}

// TestAgentRequestsThatWait: they are of note only when they fail, and the end of what
// they wait for is no failure.
func TestAgentRequestsThatWait(t *testing.T) {
	failed := func(message string) *ttrpc.Response {
		return &ttrpc.Response{Status: &status.Status{Code: 13, Message: message}}
	}
	for name, tt := range map[string]struct {
		method string
		resp   *ttrpc.Response
		spans  bool
	}{
		"output":           {"ReadStdout", new(ttrpc.Response), false},
		"end of output":    {"ReadStdout", failed("eof"), false},
		"end, older agent": {"ReadStderr", failed("read meet eof"), false},
		"output fails":     {"ReadStdout", failed("Invalid exec id"), true},
		"not output":       {"WaitProcess", failed("eof"), true},
		"input":            {"WriteStdin", new(ttrpc.Response), false},
		"process":          {"WaitProcess", new(ttrpc.Response), false},
		"memory":           {"GetOOMEvent", new(ttrpc.Response), false},
		"nothing comes":    {"GetOOMEvent", nil, false},
		"nothing will":     {"GetOOMEvent", failed("the sandbox has ended"), false},
		"does not wait":    {"StatsContainer", new(ttrpc.Response), true},
	} {
		t.Run(name, func(t *testing.T) {
			// Every other request is slow.
			quiet := middleware.WithQuiet(time.Nanosecond, "ReadStdout", "ReadStderr", "WriteStdin", "WaitProcess", "GetOOMEvent", "StatsContainer")
			if got := asked(t, tt.method, nil, tt.resp, quiet); tt.spans != (len(got) > 0) {
				t.Errorf("the span says %q", got)
			}
		})
	}
}
