package forwarder

import (
	"cmp"
	"sync/atomic"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Options configure a Forwarder. Collation and Journal are required unless Sink is set; the
// rest has the defaults stated at each field.
type Options struct {
	// Limits bound what the guests may send.
	Limits
	// Collation returns how to place the spans of a VM. The Forwarder sets its Sink, and counts
	// drops before it calls its Drop. It is called once for each collator.
	Collation func(from listen.Origin) collate.Options
	// KeepTraceIDs leaves spans in the traces that the guest names. It is for trusted guests:
	// such a span may appear in anybody's trace.
	KeepTraceIDs bool
	// MaxVMs bounds the VMs with a collator at a time, those of Forwarder.Sandbox included;
	// further VMs lose their spans. Default 64.
	MaxVMs int
	// Journal takes the spans.
	Journal Journal
	// Held receives the number of waiting spans: that of the latest sender at once, and
	// the sum of all within a second. Another process may read it. Nil: not reported.
	Held *atomic.Int64
	// Sink, if set, takes the spans as they arrive, unplaced.
	Sink Sink
	// Silence is how long a connection must be silent before Close closes it: its VM may live
	// on. Default 50 ms.
	Silence time.Duration
	// Warn is called for errors, none of which is fatal. Default: none.
	Warn func(error)
}

// Journal stores spans.
type Journal interface {
	// AppendSpans takes a batch as collate.Sink does, and counts the spans that it fails to
	// take.
	AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error
	// Losses counts spans that were lost earlier. Flush writes the counts; a killed process
	// loses those since the last Flush.
	Losses(of losses.Whose) *losses.Tally
	Flush() error
}

// Limits bound the cost of guests. The zero value means the defaults: those of package
// defaults, or those stated at each field.
type Limits struct {
	// Wire bounds frames and lists the attributes to keep. Its Counters are not used: Snapshot
	// has these counts.
	Wire agent.Options

	// SpansPerSecond is how many spans a sandbox may send in the long run, and SpanBurst at
	// once. Spans beyond are dropped undecoded.
	SpansPerSecond int
	SpanBurst      int
	// BytesPerSecond and ByteBurst are the same for bytes: of each span its length or its
	// memory, whichever is more. ByteBurst is at least the sum of Wire.MaxFrame and
	// Wire.MaxCost.
	BytesPerSecond int
	ByteBurst      int
	// CPUPercent is how much of one core a sandbox's spans may take in the long run, from the
	// first byte to the Sink, and CPUBurst how much time at once. Spans beyond are not decoded.
	// Default 20 and 1 s; a pod's life takes some 10 ms.
	CPUPercent int
	CPUBurst   time.Duration
	// ReadBytesPerSecond bounds how fast a sandbox is read, and so the processor time that a
	// flood costs; each frame counts as at least 512 bytes. It is far more than an agent sends,
	// and the VM only notices a slow reader. Default 64 MiB.
	ReadBytesPerSecond int

	// QueuedSpans and QueuedBytes bound the spans of each sandbox that wait for the Sink; bytes
	// are those of decoded spans in memory.
	QueuedSpans int
	QueuedBytes int

	// MaxConnections bounds the open connections of a sandbox; further ones are closed. Each
	// may take twice Wire.MaxFrame of memory if the guest sends such frames. A sandbox may open
	// 32 at once, and one a second in the long run.
	MaxConnections int
	// MaxSandboxes bounds the sandboxes with open or recent connections; connections of further
	// sandboxes are closed. Default 512.
	MaxSandboxes int
}

func (o Options) withDefaults() Options {
	o.Limits = o.Limits.withDefaults()
	o.MaxVMs = cmp.Or(o.MaxVMs, 64)
	o.Silence = cmp.Or(o.Silence, 50*time.Millisecond)
	if o.Held == nil {
		o.Held = new(atomic.Int64)
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return o
}

func (o Limits) withDefaults() Limits {
	defaults.Set(&o.Wire.MaxFrame, defaults.FrameBytes)
	defaults.Set(&o.Wire.MaxCost, span.DefaultCost)
	defaults.Set(&o.SpansPerSecond, defaults.SpansPerSecond)
	defaults.Set(&o.SpanBurst, defaults.SpanBurst)
	defaults.Set(&o.BytesPerSecond, defaults.BytesPerSecond)
	defaults.Set(&o.ByteBurst, defaults.ByteBurst)
	o.ByteBurst = max(o.ByteBurst, o.Wire.MaxFrame+o.Wire.MaxCost)
	defaults.Set(&o.CPUPercent, 20)
	defaults.Set(&o.CPUBurst, time.Second)
	defaults.Set(&o.ReadBytesPerSecond, 64<<20)
	defaults.Set(&o.QueuedSpans, defaults.QueuedSpans)
	defaults.Set(&o.QueuedBytes, defaults.QueuedBytes)
	defaults.Set(&o.MaxConnections, defaults.Connections)
	defaults.Set(&o.MaxSandboxes, 512)
	return o
}
