package forwarder_test

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
)

// store is a journal in memory.
type store struct {
	mu     sync.Mutex
	spans  map[string][]*tracepb.Span // by the resource's "vm"
	losses losses.Tally
	fail   error
	panic  bool
}

func newStore() *store {
	return &store{spans: make(map[string][]*tracepb.Span)}
}

func (s *store) AppendSpans(resource *resourcepb.Resource, _ string, spans []byte, _ int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.panic {
		panic("the client fails")
	}
	if s.fail != nil {
		return s.fail
	}
	all := new(tracepb.ScopeSpans)
	if err := proto.Unmarshal(spans, all); err != nil {
		return err
	}
	vm := resource.Attributes[0].Value.GetStringValue()
	s.spans[vm] = append(s.spans[vm], all.Spans...)
	return nil
}

func (s *store) Flush() error { return nil }

func (s *store) Losses(losses.Whose) *losses.Tally { return &s.losses }

func (s *store) of(vm string) []*tracepb.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spans[vm]
}

// isolated names the resource after the VM.
func isolated(from listen.Origin) collate.Options {
	name := from.Sandbox
	if name == "" {
		name = "stranger"
	}
	return collate.Options{Options: calls.Options{Isolated: true}, Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
		{Key: "vm", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: name}}},
	}}}
}

// start returns a Forwarder that runs until the test ends, or until closed.
func start(t *testing.T, s *store, o forwarder.Options) (r *forwarder.Forwarder, closed func() error) {
	t.Helper()
	o.Journal = s
	if o.Collation == nil {
		o.Collation = isolated
	}
	r = forwarder.New(o)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	closed = sync.OnceValue(func() error {
		stop()
		running.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return r.Close(ctx)
	})
	t.Cleanup(func() {
		if err := closed(); err != nil {
			t.Error(err)
		}
	})
	return r, closed
}

// placeholders counts the spans that stand for lost ones.
func placeholders(spans []*tracepb.Span) (n int) {
	for _, s := range spans {
		if s.Name == names.LostAgentSpan {
			n++
		}
	}
	return n
}

// TestVMsApart: the spans of concurrent VMs all arrive under their own VM's name, in traces
// that no other VM uses.
func TestVMsApart(t *testing.T) {
	s := newStore()
	r, closed := start(t, s, forwarder.Options{})
	data := captured.Frames(t, "kata-4.1.0-pod.agent")
	var agents sync.WaitGroup
	for _, from := range []listen.Origin{{Sandbox: "a"}, {Sandbox: "b", CID: 7}, {CID: 8}} {
		agent := connect(t, r, from)
		agents.Go(func() {
			send(t, agent, data)
			agent.Close()
		})
	}
	agents.Wait()
	if err := closed(); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]string)
	for _, vm := range []string{"a", "b", "stranger"} {
		spans := s.of(vm)
		if n := len(spans) - placeholders(spans); n != 168 {
			t.Errorf("%d spans of %s, want 168", n, vm)
		}
		for _, span := range spans {
			id := hex.EncodeToString(span.TraceId)
			if other := seen[id]; other != "" && other != vm {
				t.Fatalf("trace %s is of %s and of %s", id, vm, other)
			}
			seen[id] = vm
		}
	}
	if snap := r.Snapshot(); snap.Delivered != 3*168 || snap.Sent < 3*168 || len(snap.Lost) > 0 {
		t.Errorf("%+v", snap)
	}
}

// TestEndsWithLastConnection: spans that wait for a parent are sent when the last connection of
// the VM that sent spans has ended, not before.
func TestEndsWithLastConnection(t *testing.T) {
	s := newStore()
	r, _ := start(t, s, forwarder.Options{})
	data := captured.Frames(t, "kata-4.1.0-rs-pod.agent")
	first, silent := connect(t, r, listen.Origin{Sandbox: "a"}), connect(t, r, listen.Origin{Sandbox: "a"})
	send(t, first, data)
	eventually(t, "all arrive", func() bool { return r.Snapshot().Delivered == 122 })
	silent.Close()
	eventually(t, "one connection is left", func() bool { return r.Snapshot().Connections == 1 })
	if n := placeholders(s.of("a")); n > 0 {
		t.Errorf("%d placeholders although the agent is connected", n)
	}
	first.Close()
	eventually(t, "the lost spans have placeholders", func() bool { return placeholders(s.of("a")) > 0 })
}

// TestSandbox: a sandbox's collator outlives its connections, and the calls reported to it
// apply to the next one.
func TestSandbox(t *testing.T) {
	s := newStore()
	root := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{9}, SpanID: trace.SpanID{9}, TraceFlags: trace.FlagsSampled})
	r, closed := start(t, s, forwarder.Options{Collation: func(from listen.Origin) collate.Options {
		o := isolated(from)
		o.Isolated, o.Root = false, root
		return o
	}})
	own := r.Sandbox("a")
	if own == nil || r.Sandbox("a") != own {
		t.Fatal("there is more than one collator of a sandbox")
	}
	data := captured.Frames(t, "kata-3.28.0-agent")
	agent := connect(t, r, listen.Origin{Sandbox: "a"})
	send(t, agent, data)
	agent.Close()
	eventually(t, "the connection ends", func() bool { return r.Snapshot().Connections == 0 && len(s.of("a")) >= 60 })
	// Only the same collator recognizes the same spans.
	agent = connect(t, r, listen.Origin{Sandbox: "a"})
	send(t, agent, data)
	agent.Close()
	if err := closed(); err != nil {
		t.Fatal(err)
	}
	if n := int(s.losses.Of(losses.Duplicate)); n != 60 {
		t.Errorf("%d duplicates, want 60", n)
	}
	for _, span := range s.of("a") {
		if trace.TraceID(span.TraceId) != root.TraceID() {
			t.Errorf("%s is in trace %x", span.Name, span.TraceId)
		}
	}
}

// TestTraceIDs: a guest's trace ids are kept only if the options say so. (A child in another
// trace than its parent's moves to the parent's.)
func TestTraceIDs(t *testing.T) {
	for _, keep := range []bool{false, true} {
		s := newStore()
		r, closed := start(t, s, forwarder.Options{KeepTraceIDs: keep})
		data := captured.Frames(t, "kata-3.28.0-agent")
		theirs := make(map[trace.TraceID]bool)
		for _, span := range decode(t, data) {
			theirs[span.TraceID] = true
		}
		agent := connect(t, r, listen.Origin{Sandbox: "a"})
		send(t, agent, data)
		agent.Close()
		if err := closed(); err != nil {
			t.Fatal(err)
		}
		spans := s.of("a")
		if n := len(spans) - placeholders(spans); n != 60 {
			t.Errorf("keep %t: %d spans, want 60", keep, n)
		}
		for _, span := range spans {
			if theirs[trace.TraceID(span.TraceId)] != keep {
				t.Errorf("keep %t: %s is in trace %x", keep, span.Name, span.TraceId)
			}
		}
	}
}

// TestLost: each loss is counted once, under its reason.
func TestLost(t *testing.T) {
	s := newStore()
	r, closed := start(t, s, forwarder.Options{MaxVMs: 1})
	data := captured.Frames(t, "kata-3.28.0-agent")
	send(t, connect(t, r, listen.Origin{Sandbox: "a"}), append(data, 0, 0, 0, 0, 0, 0, 0, 3, 'x', 'y', 'z'))
	eventually(t, "the frame that is no span is told", func() bool { return s.losses.Of(losses.Truncated)+s.losses.Of(losses.Malformed) == 1 })
	send(t, connect(t, r, listen.Origin{CID: 7}), data)
	eventually(t, "what is too much is counted", func() bool { return r.Snapshot().Lost[losses.VMs] == 60 })
	if err := closed(); err != nil {
		t.Fatal(err)
	}
	if n := int(s.losses.Of(losses.VMs)); n != 60 {
		t.Errorf("told of %d, want 60", n)
	}
	if n := s.losses.Of(losses.Truncated) + s.losses.Of(losses.Malformed); n != 1 {
		t.Errorf("told of %d frames, want 1", n)
	}
}

// TestClientFails: if the journal fails to take spans, that is warned of and counted here; the
// journal itself counts the reason.
func TestClientFails(t *testing.T) {
	s := newStore()
	s.fail = errors.New("the disk is full")
	var warned sync.Map
	r, closed := start(t, s, forwarder.Options{Warn: func(err error) { warned.Store(err.Error(), true) }})
	agent := connect(t, r, listen.Origin{Sandbox: "a"})
	send(t, agent, captured.Frames(t, "kata-3.28.0-agent"))
	agent.Close()
	if err := closed(); err != nil {
		t.Fatal(err)
	}
	if _, ok := warned.Load("the disk is full"); !ok {
		t.Error("nobody was warned")
	}
	if snap := r.Snapshot(); snap.Lost[losses.NotTaken] < 60 || snap.Sent != 0 || int(s.losses.Of(losses.NotTaken)) != 0 {
		t.Errorf("%+v, told of %d", snap, int(s.losses.Of(losses.NotTaken)))
	}
}

// TestPanic: a panic costs spans, not the process.
func TestPanic(t *testing.T) {
	s := newStore()
	s.panic = true
	r, closed := start(t, s, forwarder.Options{})
	data := captured.Frames(t, "kata-3.28.0-agent")
	send(t, connect(t, r, listen.Origin{Sandbox: "a"}), data)
	eventually(t, "spans are lost", func() bool { return int(s.losses.Of(losses.Panic)) > 0 })
	s.mu.Lock()
	s.panic = false
	s.mu.Unlock()
	send(t, connect(t, r, listen.Origin{Sandbox: "b"}), data)
	if err := closed(); err != nil {
		t.Fatal(err)
	}
	if n := int(s.losses.Of(losses.Panic)) + len(s.of("a")) - placeholders(s.of("a")); n != 60 {
		t.Errorf("%d of 60 spans are lost or there", n)
	}
	if n := len(s.of("b")) - placeholders(s.of("b")); n != 60 {
		t.Errorf("of another VM there are %d spans, want 60", n)
	}
}

// TestQuiet: an unwanted span is no loss.
func TestQuiet(t *testing.T) {
	s := newStore()
	r, closed := start(t, s, forwarder.Options{Collation: func(from listen.Origin) collate.Options {
		o := isolated(from)
		o.Quiet, o.Slow = []string{"Stats"}, time.Hour
		return o
	}})
	agent := connect(t, r, listen.Origin{Sandbox: "a"})
	send(t, agent, captured.Frames(t, "kata-4.1.0-pod.agent"))
	agent.Close()
	if err := closed(); err != nil {
		t.Fatal(err)
	}
	if snap := r.Snapshot(); snap.Unwanted == 0 || len(snap.Lost) > 0 || snap.Unwanted+snap.Sent < 168 {
		t.Errorf("%+v", snap)
	}
}

// decode returns the spans of a connection.
func decode(t *testing.T, data []byte) (spans []span.Span) {
	t.Helper()
	d := agent.NewDecoder(agent.Options{})
	for len(data) > 0 {
		n := int(data[6])<<8 | int(data[7])
		var s span.Span
		if err := d.Decode(data[8:8+n], &s); err != nil {
			t.Fatal(err)
		}
		spans, data = append(spans, s), data[8+n:]
	}
	return spans
}
