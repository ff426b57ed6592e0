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
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Options are what a Forwarder is made of. Collation and Journal are required unless there
// is a Sink, the rest has the defaults named at each field.
type Options struct {
	// Limits bound what the guests may send.
	Limits
	// Collation returns how the spans of a VM get their place; their Sink is the
	// Forwarder's, and Drop is told after it. A VM that is refused is read all the same,
	// and its spans are counted as lost for that reason. It is called once for each VM.
	Collation func(from listen.Origin) (o collate.Options, refused losses.Reason)
	// KeepTraceIDs leaves spans in the traces that the guest says they are in. It is
	// for guests that are trusted: such a span may turn up in anybody's trace.
	KeepTraceIDs bool
	// MaxVMs bounds the VMs that are told apart at a time, those of Forwarder.Sandbox
	// included; the spans of more are lost. Default 64.
	MaxVMs int
	// Journal takes the spans.
	Journal Journal
	// Held is how many spans wait for their place, of the VM that has sent last, and
	// within a second of all; nil: nobody wants to know. It may be another process's to
	// read.
	Held *atomic.Int64
	// Sink takes them as they arrive instead, and they get no place.
	Sink Sink
	// Warn is told what goes wrong; nothing ends by it. Default: nobody asks.
	Warn func(error)
}

// Journal is where spans go.
type Journal interface {
	// AppendSpans takes a batch as collate.Sink does, and answers for those that it
	// fails to take.
	AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error
	// Losses counts spans that were lost before. Flush writes the counts; what was lost
	// since the last time is forgotten if the process is killed.
	Losses(of losses.Whose) *losses.Tally
	Flush() error
}

// Limits bound what the guests may cost. The zero value means the defaults: those of
// package defaults, or those named at each field.
type Limits struct {
	// Wire bounds frames and says which attributes are kept. Its Counters are not
	// used: Snapshot has what they count.
	Wire agent.Options

	// SpansPerSecond is how many spans a sandbox may send in the long run, and
	// SpanBurst at once. What is beyond is dropped undecoded.
	SpansPerSecond int
	SpanBurst      int
	// BytesPerSecond and ByteBurst are the same for bytes: of each span those that
	// arrive or those that it takes in memory, whichever are more. ByteBurst is at
	// least Wire.MaxFrame and Wire.MaxCost together.
	BytesPerSecond int
	ByteBurst      int
	// CPUPercent is how much of one core the work for a sandbox's spans may take in
	// the long run, from the first byte to the Sink, and CPUBurst how much time at
	// once. Spans beyond that are not decoded. Default 20 and 1 s; a pod's life takes
	// some 10 ms.
	CPUPercent int
	CPUBurst   time.Duration
	// ReadBytesPerSecond is how fast a sandbox is read at all, that is, what one
	// that floods can cost in CPU time; frames count as 512 bytes at least. It is
	// far above what an agent can make, and the VM feels no more than a slow
	// reader. Default 64 MiB.
	ReadBytesPerSecond int

	// QueuedSpans and QueuedBytes bound what waits for the Sink, for each sandbox;
	// bytes are those of decoded spans in memory.
	QueuedSpans int
	QueuedBytes int

	// MaxConnections bounds the open connections of a sandbox; more are closed. Each
	// may take twice Wire.MaxFrame of memory, if the guest sends such frames. They may
	// be opened once a second, and 32 at once.
	MaxConnections int
	// MaxSandboxes bounds the sandboxes that have connections or had them lately;
	// the connections of more are closed. Default 512.
	MaxSandboxes int
}

func (o Options) withDefaults() Options {
	o.Limits = o.Limits.withDefaults()
	o.MaxVMs = cmp.Or(o.MaxVMs, 64)
	if o.Held == nil {
		o.Held = new(atomic.Int64)
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return o
}

func (o Limits) withDefaults() Limits {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&o.Wire.MaxFrame, defaults.FrameBytes)
	set(&o.Wire.MaxCost, 256<<10)
	set(&o.SpansPerSecond, defaults.SpansPerSecond)
	set(&o.SpanBurst, defaults.SpanBurst)
	set(&o.BytesPerSecond, defaults.BytesPerSecond)
	set(&o.ByteBurst, defaults.ByteBurst)
	o.ByteBurst = max(o.ByteBurst, o.Wire.MaxFrame+o.Wire.MaxCost)
	set(&o.CPUPercent, 20)
	if o.CPUBurst <= 0 {
		o.CPUBurst = time.Second
	}
	set(&o.ReadBytesPerSecond, 64<<20)
	set(&o.QueuedSpans, defaults.QueuedSpans)
	set(&o.QueuedBytes, defaults.QueuedBytes)
	set(&o.MaxConnections, defaults.Connections)
	set(&o.MaxSandboxes, 512)
	return o
}
