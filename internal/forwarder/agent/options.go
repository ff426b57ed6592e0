package agent

import (
	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Options bound what one connection may cost and list what may leave the VM. The zero value
// means the defaults stated at each field.
type Options struct {
	span.Options

	// MaxFrame is the longest payload that is read, in bytes; a longer one is skipped and
	// counted. It also bounds a Reader's buffer. Default: package defaults.
	MaxFrame int

	// Counters counts what happens; connections may share one. Default: a new one.
	Counters *Counters
}

func (o Options) withDefaults() Options {
	defaults.Set(&o.MaxFrame, defaults.FrameBytes)
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	return o
}
