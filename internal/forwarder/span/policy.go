package span

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/names"
)

// Options say which parts of a span are kept and bound its cost. The zero value means the
// defaults stated at each field.
type Options struct {
	// Keep lists the keys of attributes whose values are kept. A key that ends in "*" stands
	// for all with that prefix, and "*" alone switches redaction off. nil means DefaultKeep;
	// empty keeps nothing.
	Keep []string

	// MaxValue is the longest value in bytes. A longer string is cut (names and status messages
	// too); a longer array, or one of more than 128 elements, becomes its size; a longer trace
	// state is left out. Default: package defaults.
	MaxValue int

	// MaxAttributes, MaxEvents and MaxLinks bound a span's lists; what is beyond goes into the
	// span's dropped counts, as in an SDK. MaxAttributes also applies to each event and link.
	// Default 128 each, the agent's own limit.
	MaxAttributes int
	MaxEvents     int
	MaxLinks      int

	// MaxCost bounds Span.Cost: attributes, events and links beyond it are dropped like those
	// beyond the other limits. Default: DefaultCost.
	MaxCost int
}

// DefaultKeep returns the keys kept unless Options.Keep says otherwise: they tell where the
// agent's time went and cannot hold what a container was given.
func DefaultKeep() []string {
	return []string{
		"code.*", "thread.*", "busy_ns", "idle_ns", "mod", "cid", "container_id",
		"ns_type", "fs_type", "source", "destination", "flags", "mount_point",
	}
}

// DefaultCost is what a span may cost at most, in bytes, unless Options say otherwise; a real
// one costs some 4 KiB.
const DefaultCost = 256 << 10

// MaxKey is the longest attribute key in bytes; longer ones are dropped.
const MaxKey = 256

func (o Options) withDefaults() Options {
	defaults.Set(&o.MaxValue, defaults.ValueBytes)
	defaults.Set(&o.MaxAttributes, 128)
	defaults.Set(&o.MaxEvents, 128)
	defaults.Set(&o.MaxLinks, 128)
	defaults.Set(&o.MaxCost, DefaultCost)
	if o.Keep == nil {
		o.Keep = DefaultKeep()
	}
	return o
}

// Counters counts what became of spans. It is safe for concurrent use.
type Counters struct {
	// Spans is how many were made.
	Spans atomic.Uint64
	// Reduced counts attributes that became their size; Cut, values that were cut or left out
	// for their length; Dropped, attributes, events and links beyond the limits.
	Reduced, Cut, Dropped atomic.Uint64
}

// keepList is Options.Keep, prepared for lookup: an attribute costs less to compare with a few
// keys than to hash.
type keepList struct{ exact, prefixes []string }

func newKeepList(keys []string) (l keepList) {
	for _, k := range keys {
		if prefix, ok := strings.CutSuffix(k, "*"); ok {
			l.prefixes = append(l.prefixes, prefix)
		} else {
			l.exact = append(l.exact, k)
		}
	}
	return l
}

// all reports whether nothing is reduced.
func (l *keepList) all() bool { return slices.Contains(l.prefixes, "") }

func (l *keepList) has(key []byte) bool {
	for _, p := range l.prefixes {
		if len(key) >= len(p) && string(key[:len(p)]) == p {
			return true
		}
	}
	for _, k := range l.exact {
		if string(key) == k {
			return true
		}
	}
	return false
}

// reserved reports whether only the host sets a key, even if Keep lists it.
func reserved(key []byte) bool {
	return string(key) == names.Container || strings.HasPrefix(string(key), "shimtrace.")
}
