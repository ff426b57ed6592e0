package forwarder

import (
	"bytes"
	"testing"

	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestSetLimits: other limits are in effect for a connection that is open.
func TestSetLimits(t *testing.T) {
	const sandbox = "s"
	keep := func(keys ...string) agent.Options { return agent.Options{Options: span.Options{Keep: keys}} }
	nothing, everything := keep(""), keep("*")
	frame, reduced, whole := tellingFrame(t, nothing, everything)

	sink := newRecord()
	f := forward(t, sink, Limits{Wire: nothing})
	a := connect(t, f, listen.Origin{Sandbox: sandbox})
	sent := 0
	send := func(what string, done func(Counts) bool) {
		t.Helper()
		a.send(frame)
		eventually(t, what, func() bool { return done(f.Snapshot().of(sandbox)) })
	}
	taken := func(n Counts) bool { return n.Delivered == uint64(sent+1) }
	last := func() []byte {
		sink.mu.Lock()
		defer sink.mu.Unlock()
		return sink.spans[sandbox][sent].AppendOTLP(nil)
	}
	send("a span is delivered", taken)
	if !bytes.Equal(last(), reduced) {
		t.Error("it is not what was to be kept")
	}
	sent++
	f.SetLimits(Limits{Wire: everything})
	send("a second one is delivered", taken)
	if !bytes.Equal(last(), whole) {
		t.Error("it is not what is to be kept now")
	}
	sent++
	everything.MaxFrame = len(frame) - prefixSize - 1
	f.SetLimits(Limits{Wire: everything})
	send("a longer one than is allowed now is lost", func(n Counts) bool { return n.Lost[losses.Oversized] == 1 })
	f.SetLimits(Limits{SpansPerSecond: 1, SpanBurst: 1})
	frame = bytes.Repeat(frame, 20)
	send("most are beyond the new rate", func(n Counts) bool { return n.Lost[losses.SpanRate] > 0 })
	f.SetLimits(Limits{MaxConnections: 1})
	connect(t, f, listen.Origin{Sandbox: sandbox})
	eventually(t, "a second connection is refused", func() bool { return f.Snapshot().of(sandbox).Refused[reasonConnections] == 1 })
}

// tellingFrame returns a captured frame whose span differs by what is kept, and both spans.
func tellingFrame(t *testing.T, some, all agent.Options) (frame, reduced, whole []byte) {
	t.Helper()
	a, b := agent.NewDecoder(some), agent.NewDecoder(all)
	for _, frame := range frames(captured.Frames(t, capturePod)) {
		var one, other span.Span
		if a.Decode(frame[prefixSize:], &one) != nil || b.Decode(frame[prefixSize:], &other) != nil {
			t.Fatal("a captured frame cannot be decoded")
		}
		if x, y := one.AppendOTLP(nil), other.AppendOTLP(nil); !bytes.Equal(x, y) {
			return frame, x, y
		}
	}
	t.Fatal("no frame differs by what is kept")
	return nil, nil, nil
}
