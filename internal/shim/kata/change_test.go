package kata

import (
	"net"
	"testing"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
)

// unplaced takes spans as they arrive.
type unplaced struct{}

func (unplaced) Span(forwarder.ConnInfo, *span.Span)   {}
func (unplaced) Closed(forwarder.ConnInfo, error)      {}
func noSink(*resourcepb.Resource, string, []byte, int) {}

// TestChange: what is kept of the agent's spans, and their limits, change while it is
// connected.
func TestChange(t *testing.T) {
	cfg := config.Default()
	cfg.Agent.Keep = []string{}
	o := &Observer{Options: Options{Config: cfg}, own: collate.New(collate.Options{Sink: noSink})}
	o.forwarder = forwarder.New(forwarder.Options{Limits: agentconfig.Limits(cfg.Agent), Sink: unplaced{}})
	t.Cleanup(func() { _ = o.forwarder.Close(t.Context()) })
	vm, ours := net.Pipe()
	t.Cleanup(func() { vm.Close() })
	o.forwarder.Take(ours, listen.Origin{Sandbox: "s"})
	const capture = "kata-3.28.0-agent"
	frames, all := captured.Frames(t, capture), uint64(len(captured.AgentSpans(t, capture)))
	send := func(what string, done func(forwarder.Counts) bool) (n forwarder.Counts) {
		t.Helper()
		if _, err := vm.Write(frames); err != nil {
			t.Fatal(err)
		}
		shimtest.Eventually(t, what, func() bool {
			n = o.forwarder.Snapshot().Counts
			return done(n)
		})
		return n
	}
	first := send("spans are delivered", func(n forwarder.Counts) bool { return n.Delivered == all })
	cfg.Agent.Keep = []string{"*"}
	o.Change(cfg)
	second := send("they are delivered again", func(n forwarder.Counts) bool { return n.Delivered == 2*all })
	if first.Reduced == 0 || second.Reduced != first.Reduced {
		t.Errorf("%d attributes were reduced, then %d", first.Reduced, second.Reduced)
	}
	cfg.Agent.Limits.SpanBurst, cfg.Agent.Limits.SpansPerSecond = 1, 1
	o.Change(cfg)
	send("most are beyond the limit", func(n forwarder.Counts) bool { return n.Lost[losses.SpanRate] > 0 })
}
