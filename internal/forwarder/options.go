package forwarder

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Options bound what the guests may cost. The zero value means the defaults named
// at each field. A real pod sends a few spans a second, 6 kB each, and at most a
// few hundred at once.
type Options struct {
	// Wire bounds frames and says which attributes are kept. Its Counters are not
	// used: Snapshot has what they count.
	Wire agent.Options
	// Losses counts the spans that are lost; nil: only Snapshot does.
	Losses *losses.Tally

	// SpansPerSecond is how many spans a sandbox may send in the long run, and
	// SpanBurst at once. What is beyond is dropped undecoded. Default 250 and 2048.
	SpansPerSecond int
	SpanBurst      int
	// BytesPerSecond and ByteBurst are the same for bytes: of each span those that
	// arrive or those that it takes in memory, whichever are more. Default 1 MiB and
	// 10 MiB. ByteBurst is at least Wire.MaxFrame and Wire.MaxCost together.
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
	// bytes are those of decoded spans in memory. Default 2048 and 4 MiB.
	QueuedSpans int
	QueuedBytes int

	// MaxConnections bounds the open connections of a sandbox; more are closed. An
	// agent has one. Each may take twice Wire.MaxFrame of memory, if the guest
	// sends such frames. Default 4. They may be opened once a second, and 32 at once.
	MaxConnections int
	// MaxSandboxes bounds the sandboxes that have connections or had them lately;
	// the connections of more are closed. Default 512.
	MaxSandboxes int
}

func (o Options) withDefaults() Options {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&o.Wire.MaxFrame, 1<<20)
	set(&o.Wire.MaxCost, 256<<10)
	set(&o.SpansPerSecond, 250)
	set(&o.SpanBurst, 2048)
	set(&o.BytesPerSecond, 1<<20)
	set(&o.ByteBurst, 10<<20)
	o.ByteBurst = max(o.ByteBurst, o.Wire.MaxFrame+o.Wire.MaxCost)
	set(&o.CPUPercent, 20)
	if o.CPUBurst <= 0 {
		o.CPUBurst = time.Second
	}
	set(&o.ReadBytesPerSecond, 64<<20)
	set(&o.QueuedSpans, 2048)
	set(&o.QueuedBytes, 4<<20)
	set(&o.MaxConnections, 4)
	set(&o.MaxSandboxes, 512)
	return o
}
