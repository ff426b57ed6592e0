package receiver

import (
	"sync/atomic"
	"time"

	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Options bound what posts may cost. The zero value means the defaults named at each
// field.
type Options struct {
	// MaxBody is the longest post in bytes, after inflating; JSON may have a quarter of
	// that. Longer ones are refused with 413, which makes exporters drop them. Default:
	// package defaults.
	MaxBody int
	// BytesPerSecond bounds what all posts together may have in the long run, in bytes
	// after inflating; a single connection may have a quarter of that. At once, they may
	// have two seconds' worth, and at least MaxBody. Further posts are refused with 429,
	// which makes exporters send them later. Default: package defaults.
	BytesPerSecond int
	// RoomBytes bounds all posts that are being read or wait to be taken. Those that do
	// not fit are refused with 503, and sent later. Default 32 MiB, and at least
	// MaxBody.
	RoomBytes int
	// MaxConnections bounds the open connections; more are closed at once. Default 512.
	MaxConnections int
	// ReadTimeout bounds the arrival of a post. Default 20 s.
	ReadTimeout time.Duration
	// TakeTimeout bounds the wait for the Sink. Default 1 s.
	TakeTimeout time.Duration

	// Report is told of the first case of each loss reason; nil: nobody is told.
	Report func(losses.Reason, error)
	// Counters counts what happens. Default: a new one.
	Counters *Counters
}

func (o Options) withDefaults() Options {
	defaults.Set(&o.MaxBody, defaults.OTLPBody)
	defaults.Set(&o.BytesPerSecond, defaults.OTLPBytesPerSecond)
	defaults.Set(&o.RoomBytes, 32<<20)
	o.RoomBytes = max(o.RoomBytes, o.MaxBody)
	defaults.Set(&o.MaxConnections, 512)
	defaults.Set(&o.ReadTimeout, 20*time.Second)
	defaults.Set(&o.TakeTimeout, time.Second)
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	return o
}

// Counters counts what has arrived. It is safe for concurrent use.
type Counters struct {
	// Posts and Spans have been taken by the Sink.
	Posts, Spans atomic.Uint64
	// Postponed posts are to be sent again by their exporters, which is no loss.
	Postponed atomic.Uint64
	// TurnedAway counts connections beyond Options.MaxConnections, Strangers those of
	// other users on Unix sockets.
	TurnedAway, Strangers atomic.Uint64
	// Losses counts lost spans, a post that could not be read as one; nil: nothing is
	// counted.
	Losses *losses.Tally
}
