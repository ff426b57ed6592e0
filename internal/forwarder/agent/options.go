package agent

import (
	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Options bound what one connection may cost and say what may leave the VM.
// The zero value means the defaults named at each field.
type Options struct {
	span.Options

	// MaxFrame is the longest payload in bytes that is read; a longer one is
	// skipped and counted. Default: package defaults. It also bounds a Reader's buffer.
	MaxFrame int

	// Counters receives what happens; connections may share one. nil: nobody
	// asks.
	Counters *Counters
}

func (o Options) withDefaults() Options {
	if o.MaxFrame <= 0 {
		o.MaxFrame = defaults.FrameBytes
	}
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	return o
}
