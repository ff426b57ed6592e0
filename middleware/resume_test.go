package middleware_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/middleware"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// ids has the next span get ids that a context names; package export has such a generator.
type ids struct{}

type idsKey struct{}

func withIDs(ctx context.Context, t trace.TraceID, s trace.SpanID) context.Context {
	return context.WithValue(ctx, idsKey{}, trace.NewSpanContext(trace.SpanContextConfig{TraceID: t, SpanID: s}))
}

var last byte

func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if sc, ok := ctx.Value(idsKey{}).(trace.SpanContext); ok {
		return sc.TraceID(), sc.SpanID()
	}
	last++
	return trace.TraceID{1, last}, trace.SpanID{1, last}
}

func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	_, id := ids{}.NewIDs(ctx)
	return id
}

// handed is a connection that relays leave to each other.
type handed struct {
	*wires
	t              *testing.T
	client, server *os.File
	memory         *os.File
	relay          *middleware.Relay
}

func copyFile(t testing.TB, fd uintptr) *os.File {
	t.Helper()
	n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(n), "copy")
}

func fileConn(t testing.TB, f *os.File) net.Conn {
	t.Helper()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// leaving relays a connection with a relay that will leave.
func leaving(t *testing.T, opts ...middleware.Option) *handed {
	h := &handed{wires: &wires{}, t: t}
	begun := make(chan struct{})
	h.relay = middleware.NewRelay(append(opts, middleware.WithHandover(middleware.Handover{
		Begun: func(_, _ net.Conn, m *handover.Memory) func() {
			h.memory = copyFile(t, m.File().Fd())
			close(begun)
			return func() { t.Error("the connection is told as ended") }
		},
	}))...)
	var in, out *net.UnixConn
	h.wires.client, in = socketpair(t)
	h.wires.server, out = socketpair(t)
	h.client, _ = in.File()
	h.server, _ = out.File()
	h.done = make(chan struct{})
	go h.relay.Connect(in, out)
	<-begun
	return h
}

// resume has another relay go on.
func (h *handed) resume(opts ...middleware.Option) {
	h.t.Helper()
	if err := h.relay.Leave(); err != nil {
		h.t.Fatal(err)
	}
	memory, err := handover.Open(h.memory)
	if err != nil {
		h.t.Fatal(err)
	}
	client, server := fileConn(h.t, h.client), fileConn(h.t, h.server)
	h.client.Close()
	h.server.Close()
	relay := middleware.NewRelay(append(opts, middleware.WithHandover(middleware.Handover{
		Begun:   func(net.Conn, net.Conn, *handover.Memory) func() { return nil },
		WithIDs: withIDs,
	}))...)
	go func() {
		defer close(h.done)
		if err := relay.Resume(client, server, memory); err != nil {
			h.t.Error(err)
		}
	}()
}

// observed is an observer that takes note of what it is told.
type observed struct {
	middleware.NopObserver
	told []string
}

func (o *observed) Began(c *middleware.Call)     { o.told = append(o.told, "began "+c.Method) }
func (o *observed) Forwarded(c *middleware.Call) { o.told = append(o.told, "forwarded "+c.Method) }
func (o *observed) Answered(c *middleware.Call) {
	o.told = append(o.told, "answered "+c.Method+" of "+c.ContainerID)
}

// TestResumedCalls: a call that waits while one relay takes the place of another ends
// with the span whose context its request has carried on.
func TestResumedCalls(t *testing.T) {
	provider := func() (middleware.Option, func() []sdktrace.ReadOnlySpan) {
		opt, rec := recorder(sdktrace.WithIDGenerator(ids{}))
		return opt, rec.Ended
	}
	first, endedFirst := provider()
	h := leaving(t, first, propagators("tracecontext"))
	payload, err := proto.Marshal(&task.WaitRequest{ID: "box"})
	if err != nil {
		t.Fatal(err)
	}
	caller := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for stream, md := range map[uint32][]*ttrpc.KeyValue{1: nil, 3: {{Key: "traceparent", Value: caller}}} {
		send(t, h.wires.client, request(stream, &ttrpc.Request{Service: taskService, Method: "Wait", Payload: payload, Metadata: md}))
	}
	contexts := map[uint32]string{}
	for range 2 {
		head, envelope := readFrame(t, h.wires.server)
		var r ttrpc.Request
		if err := proto.Unmarshal(envelope, &r); err != nil {
			t.Fatal(err)
		}
		contexts[head.Stream] = r.Metadata[0].Value
	}
	half := answer(1, &ttrpc.Response{Payload: make([]byte, 9000)})
	send(t, h.wires.server, half[:5000])
	read(t, h.wires.client, half[:5000])

	ends := make(chan middleware.End, 1)
	second, endedSecond := provider()
	seen := &observed{}
	h.resume(second, propagators("tracecontext"), middleware.WithObserver(seen), middleware.WithEnd(func(e middleware.End) { ends <- e }))
	send(t, h.wires.server, half[5000:])
	read(t, h.wires.client, half[5000:])
	whole := answer(3, &ttrpc.Response{})
	send(t, h.wires.server, whole)
	read(t, h.wires.client, whole)
	h.wires.client.Close()
	readEnd(t, h.wires.server)
	h.wires.server.Close()
	h.wait(t)

	if n := len(endedFirst()); n > 0 {
		t.Errorf("the relay that has left ended %d spans", n)
	}
	spans := endedSecond()
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	for i, stream := range []uint32{1, 3} {
		s := spans[i]
		sc := s.SpanContext()
		if got := "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-01"; got != contexts[stream] {
			t.Errorf("stream %d: the request carried %s, the span is %s", stream, contexts[stream], got)
		}
		if parent := s.Parent().SpanID().String() == "b7ad6b7169203331"; parent != (stream == 3) {
			t.Errorf("stream %d: its parent is %s", stream, s.Parent().SpanID())
		}
		if s.Status().Description != "" || s.Name() != taskService+"/Wait" || s.EndTime().Sub(s.StartTime()) > patience || s.EndTime().Before(s.StartTime()) {
			t.Errorf("stream %d: %v from %v to %v, %v", stream, s.Name(), s.StartTime(), s.EndTime(), s.Status())
		}
	}
	if e := <-ends; e.Requests != 2 || e.By != middleware.Client || e.Last != taskService+"/Wait" {
		t.Errorf("it ended as %+v", e)
	}
	if want := "[began Wait forwarded Wait began Wait forwarded Wait answered Wait of box]"; fmt.Sprint(seen.told) != want {
		t.Errorf("the observer is told %v, want %s", seen.told, want)
	}
}

// TestLeaveAmid: a relay leaves while a direction is over, within frames and with full
// buffers; what passes is what would have.
func TestLeaveAmid(t *testing.T) {
	h := leaving(t, tracing()...)
	large := request(1, state(1<<20))
	sent := make(chan error, 1)
	go func() {
		_, err := h.wires.client.Write(append(large, request(3, state(9))...))
		if err == nil {
			err = h.wires.client.CloseWrite()
		}
		sent <- err
	}()
	head := make([]byte, wire.HeaderLen)
	if _, err := h.wires.server.Read(head); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	h.resume(tracing()...)
	rest := make([]byte, wire.ParseHeader(head).Length)
	for n := 0; n < len(rest); {
		m, err := h.wires.server.Read(rest[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if head, _ := readFrame(t, h.wires.server); head.Stream != 3 {
		t.Errorf("%+v", head)
	}
	readEnd(t, h.wires.server)
	send(t, h.wires.server, answer(3, &ttrpc.Response{}))
	h.wires.server.Close()
	read(t, h.wires.client, answer(3, &ttrpc.Response{}))
	readEnd(t, h.wires.client)
	h.wait(t)
}

// TestLeaveAndGoOn: a hand-over may fail after all, and the process go on itself.
func TestLeaveAndGoOn(t *testing.T) {
	client, in := socketpair(t)
	server, out := socketpair(t)
	type connection struct {
		client, server net.Conn
		memory         *handover.Memory
	}
	begun := make(chan connection, 1)
	h := middleware.WithHandover(middleware.Handover{Begun: func(c, s net.Conn, m *handover.Memory) func() {
		begun <- connection{c, s, m}
		return nil
	}})
	relay := middleware.NewRelay(append(tracing(), h)...)
	go relay.Connect(in, out)
	c := <-begun
	for i := range uint32(3) {
		ask := request(2*i+1, state(9))
		send(t, client, ask[:15])
		time.Sleep(time.Millisecond)
		if err := relay.Leave(); err != nil {
			t.Fatal(err)
		}
		relay = middleware.NewRelay(append(tracing(), h)...)
		done := make(chan error, 1)
		go func() { done <- relay.Resume(c.client, c.server, c.memory) }()
		<-begun
		send(t, client, ask[15:])
		readFrame(t, server)
		send(t, server, answer(2*i+1, &ttrpc.Response{}))
		read(t, client, answer(2*i+1, &ttrpc.Response{}))
		if i < 2 {
			continue
		}
		client.Close()
		readEnd(t, server)
		server.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestAhead: what has been read of the two ends before passes first; of the server's, some
// is no frame.
func TestAhead(t *testing.T) {
	client, in := socketpair(t)
	server, out := socketpair(t)
	asked, answered := request(1, state(100)), answer(1, &ttrpc.Response{Payload: make([]byte, 50)})
	provider, rec := recorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		newRelay(provider, propagators("tracecontext")).Connect(
			&handover.Ahead{UnixConn: in, Bytes: asked[:20]},
			&handover.Ahead{UnixConn: out, Bytes: append([]byte("OK 1073741824\n"), answered[:15]...), Raw: 14})
	}()
	read(t, client, []byte("OK 1073741824\n"))
	read(t, client, answered[:15])
	send(t, client, asked[20:])
	readFrame(t, server)
	send(t, server, answered[15:])
	read(t, client, answered[15:])
	client.Close()
	readEnd(t, server)
	server.Close()
	<-done
	if spans := ended(t, rec, 1); spans[0].Status().Description != "" {
		t.Errorf("%v", spans[0].Status())
	}
}

// TestLeaveRefused: a connection that cannot be handed over keeps the relay, and all of its
// connections.
func TestLeaveRefused(t *testing.T) {
	client, in := net.Pipe()
	server, out := net.Pipe()
	r := middleware.NewRelay(middleware.WithHandover(middleware.Handover{}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Connect(in, out)
	}()
	go client.Write(request(1, state(5)))
	readFrame(t, server)
	if err := r.Leave(); err == nil {
		t.Error("it left")
	}
	go server.Write(answer(1, &ttrpc.Response{}))
	readFrame(t, client)
	client.Close()
	server.Close()
	<-done
	if err := r.Leave(); err != nil {
		t.Error(err)
	}
}
