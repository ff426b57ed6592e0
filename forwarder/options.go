package forwarder

import (
	"github.com/shimtrace/shimtrace/forwarder/agentwire"
)

// Options bound what the guests may cost. The zero value means the defaults named
// at each field. A real pod sends a few spans a second, 6 kB each, and at most a
// few hundred at once.
type Options struct {
	// Wire bounds frames and says which attributes are kept. Its Counters are not
	// used: Snapshot has what they count.
	Wire agentwire.Options

	// SpansPerSecond is how many spans a sandbox may send in the long run, and
	// SpanBurst at once. What is beyond is dropped undecoded. Default 1000 and 8192.
	SpansPerSecond int
	SpanBurst      int
	// BytesPerSecond and ByteBurst are the same for bytes as they arrive. Default
	// 8 MiB and 64 MiB. ByteBurst is at least Wire.MaxFrame.
	BytesPerSecond int
	ByteBurst      int
	// ReadBytesPerSecond is how fast a sandbox is read at all, that is, what one
	// that floods can cost in CPU time; frames count as 512 bytes at least. It is
	// far above what an agent can make, and the VM feels no more than a slow
	// reader. Default 64 MiB.
	ReadBytesPerSecond int

	// QueuedSpans and QueuedBytes bound what waits for the Sink, for each sandbox;
	// bytes are those of decoded spans. Default 2048 and 4 MiB.
	QueuedSpans int
	QueuedBytes int

	// MaxConnections bounds the open connections of a sandbox; more are closed. An
	// agent has one. Each may take twice Wire.MaxFrame of memory, if the guest
	// sends such frames. Default 4.
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
	set(&o.Wire.MaxFrame, 4<<20)
	set(&o.SpansPerSecond, 1000)
	set(&o.SpanBurst, 8192)
	set(&o.BytesPerSecond, 8<<20)
	set(&o.ByteBurst, 64<<20)
	o.ByteBurst = max(o.ByteBurst, o.Wire.MaxFrame)
	set(&o.ReadBytesPerSecond, 64<<20)
	set(&o.QueuedSpans, 2048)
	set(&o.QueuedBytes, 4<<20)
	set(&o.MaxConnections, 4)
	set(&o.MaxSandboxes, 512)
	return o
}
