package agentwire

import (
	"slices"
	"strings"
)

// Options bound what one connection may cost and say what may leave the VM.
// The zero value means the defaults named at each field.
type Options struct {
	// MaxFrame is the longest payload in bytes that is read; a longer one is
	// skipped and counted. Default 1 MiB. It also bounds a Reader's buffer.
	MaxFrame int

	// Keep lists the keys of attributes whose values are kept. A key that ends in
	// "*" stands for all that begin with the rest, and "*" alone switches
	// redaction off. nil means DefaultKeep; empty keeps nothing.
	Keep []string

	// MaxValue is the longest value in bytes: a longer string is cut (names and
	// status messages too), a longer array, or one of more than 128 elements,
	// becomes its size, a longer trace state is left out. Default 4 KiB.
	MaxValue int

	// MaxAttributes, MaxEvents and MaxLinks bound the lists of a span; what is
	// beyond them is counted in the span's own dropped counts, as an SDK does.
	// MaxAttributes also holds for each event and link. Default 128 each, which
	// is the agent's own limit.
	MaxAttributes int
	MaxEvents     int
	MaxLinks      int

	// MaxCost bounds Span.Cost: attributes, events and links that a span cannot
	// afford are dropped like those beyond the other limits. Default 256 KiB; a real
	// span's is some 4 KiB.
	MaxCost int

	// Counters receives what happens; connections may share one. nil: nobody
	// asks.
	Counters *Counters
}

// DefaultKeep returns the keys kept unless Options.Keep says otherwise: those
// that tell where the agent's time went and cannot hold what a container was
// given.
func DefaultKeep() []string {
	return []string{
		"code.*", "thread.*", "busy_ns", "idle_ns", "mod", "cid", "container_id",
		"ns_type", "fs_type", "source", "destination", "flags", "mount_point",
	}
}

// maxKey is the longest attribute key in bytes; longer ones are dropped.
const maxKey = 256

func (o Options) withDefaults() Options {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&o.MaxFrame, 1<<20)
	set(&o.MaxValue, 4<<10)
	set(&o.MaxAttributes, 128)
	set(&o.MaxEvents, 128)
	set(&o.MaxLinks, 128)
	set(&o.MaxCost, 256<<10)
	if o.Keep == nil {
		o.Keep = DefaultKeep()
	}
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	return o
}

// keepList is Options.Keep, ready to be asked.
type keepList struct {
	exact    map[string]struct{}
	prefixes []string
}

func newKeepList(keys []string) keepList {
	l := keepList{exact: make(map[string]struct{}, len(keys))}
	for _, k := range keys {
		if prefix, ok := strings.CutSuffix(k, "*"); ok {
			l.prefixes = append(l.prefixes, prefix)
		} else {
			l.exact[k] = struct{}{}
		}
	}
	return l
}

// all reports whether nothing is reduced.
func (l *keepList) all() bool { return slices.Contains(l.prefixes, "") }

func (l *keepList) has(key []byte) bool {
	if _, ok := l.exact[string(key)]; ok {
		return true
	}
	for _, p := range l.prefixes {
		if len(key) >= len(p) && string(key[:len(p)]) == p {
			return true
		}
	}
	return false
}
