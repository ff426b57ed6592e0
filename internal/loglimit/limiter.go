package loglimit

import (
	"strings"
	"sync"
	"time"
)

const (
	// interval is the least time between two lines of one cause.
	interval = time.Minute
	// burst lines of one kind may follow each other at once if their causes differ;
	// then one each refill.
	burst  = 10
	refill = 30 * time.Second
	// maxKinds and maxCauses bound what is remembered. Kinds are constants in the code;
	// outsiders may invent causes.
	maxKinds, maxCauses = 128, 32
)

// Limiter decides which lines are written: one a minute of each cause, and of each
// kind, whatever its causes, ten at first and two a minute after that. The zero value
// is ready, and safe for concurrent use.
type Limiter struct {
	mu    sync.Mutex
	kinds map[string]*kind
	now   func() time.Time // replaced in tests
}

type kind struct {
	causes    map[string]*cause
	lines     float64 // the lines that may be written now
	at        time.Time
	swallowed uint64 // of causes that are not remembered
}

type cause struct {
	last      time.Time
	swallowed uint64
}

// Allow reports whether a line may be written and, if so, how many of its cause were
// left out since the last one. The kind is a constant that names the place in the code;
// the cause is text without its numbers and quotations.
func (l *Limiter) Allow(kindName, text string) (swallowed uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.now != nil {
		now = l.now()
	}
	k := l.kind(kindName, now)
	k.lines = min(burst, k.lines+float64(now.Sub(k.at))/float64(refill))
	k.at = now
	c := k.cause(causeOf(text), now)
	if c == nil {
		k.swallowed++
		return 0, false
	}
	if !c.last.IsZero() && now.Sub(c.last) < interval || k.lines < 1 {
		c.swallowed++
		return 0, false
	}
	k.lines--
	swallowed = c.swallowed + k.swallowed
	c.last, c.swallowed, k.swallowed = now, 0, 0
	return swallowed, true
}

func (l *Limiter) kind(name string, now time.Time) *kind {
	if l.kinds == nil {
		l.kinds = make(map[string]*kind)
	}
	k := l.kinds[name]
	if k == nil {
		if len(l.kinds) >= maxKinds {
			name = "" // the rest share one
			k = l.kinds[name]
		}
		if k == nil {
			k = &kind{causes: make(map[string]*cause), lines: burst, at: now}
			l.kinds[name] = k
		}
	}
	return k
}

// cause returns the record of a cause; nil if there is no room.
func (k *kind) cause(name string, now time.Time) *cause {
	c := k.causes[name]
	if c != nil {
		return c
	}
	if len(k.causes) >= maxCauses {
		for old, o := range k.causes {
			if now.Sub(o.last) >= interval {
				k.swallowed += o.swallowed
				delete(k.causes, old)
			}
		}
	}
	if len(k.causes) >= maxCauses {
		return nil
	}
	c = &cause{}
	k.causes[name] = c
	return c
}

// maxWords bounds a cause in words.
const maxWords = 16

// causeOf returns the part of a text that stays the same from one time to the next: it
// leaves out words with digits and quotations.
func causeOf(text string) string {
	var b strings.Builder
	words, quoted := 0, false
	for word := range strings.FieldsSeq(text) {
		if words == maxWords {
			break
		}
		quotes := strings.Count(word, `"`) - strings.Count(word, `\"`)
		skip := quoted || quotes > 0 || strings.ContainsAny(word, "0123456789")
		quoted = quoted != (quotes%2 == 1)
		if skip {
			continue
		}
		words++
		b.WriteString(word[:min(len(word), 32)])
		b.WriteByte(' ')
	}
	return b.String()
}
