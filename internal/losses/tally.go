// Package losses counts lost spans by reason. It has each reason once, with its
// explanation in docs/journal.md. Whoever loses spans has a pointer to a Tally, whose
// counts the journal records.
package losses

import (
	"slices"
	"strings"
	"sync/atomic"
)

// A Tally counts spans by reason. Its zero value is ready; a nil one counts nothing. It
// is safe for concurrent use and never blocks.
type Tally struct {
	above *Tally
	n     [reasons]atomic.Uint64
}

// New returns a Tally that also adds its counts to above, which may be nil.
func New(above *Tally) *Tally { return &Tally{above: above} }

// Add counts spans that are lost.
func (t *Tally) Add(r Reason, spans int) {
	if spans <= 0 || r >= reasons {
		return
	}
	for ; t != nil; t = t.above {
		t.n[r].Add(uint64(spans))
	}
}

// Of returns how many spans were lost for a reason.
func (t *Tally) Of(r Reason) uint64 {
	if t == nil || r >= reasons {
		return 0
	}
	return t.n[r].Load()
}

// Counts returns the number of lost spans by reason. It leaves out reasons that lost
// none.
func (t *Tally) Counts() map[Reason]uint64 {
	counts := make(map[Reason]uint64)
	for _, r := range All() {
		if n := t.Of(r); n > 0 {
			counts[r] = n
		}
	}
	return counts
}

// Whose says which spans a Ledger's Tally counts.
type Whose uint8

const (
	// Ours are spans that were made here, or that were lost after they had reached the
	// journal.
	Ours Whose = iota
	// Agents and Runtimes are spans received from Kata's agents and from its runtimes.
	Agents
	Runtimes
	// Posted are spans that other programs of the host posted.
	Posted

	whoses
)

// prefixes precede a reason in the journal. No target has such a name.
var prefixes = [whoses]string{Agents: "agent: ", Runtimes: "runtime: ", Posted: "otlp: "}

// A Ledger holds the Tallies of one journal. Its zero value is ready.
type Ledger [whoses]Tally

// Of returns the Tally of the spans that w names.
func (l *Ledger) Of(w Whose) *Tally { return &l[w] }

// Take adds the counts to m and sets them to zero. The keys of m are reasons, with a
// prefix that says whose spans they are.
func (l *Ledger) Take(m map[string]int) {
	for w := range l {
		for r := Reason(1); r < reasons; r++ {
			if n := l[w].n[r].Swap(0); n > 0 {
				m[prefixes[w]+r.String()] += int(n)
			}
		}
	}
}

// Intended reports whether a reason, in the journal, is no loss: the spans are not kept, or
// not shipped, as configured.
func Intended(reason string) bool {
	return reason == Retention.String() || Name(reason) == KeptOut.String()
}

// Split parts counts, by reasons in the journal, into losses and those that are intended.
func Split(counts map[string]int) (lost, intended map[string]int) {
	lost, intended = make(map[string]int), make(map[string]int)
	for reason, n := range counts {
		if Intended(reason) {
			intended[reason] = n
		} else {
			lost[reason] = n
		}
	}
	return lost, intended
}

// Name returns the name of a reason in the journal. It removes the prefix that says whose
// spans they are, or which target does not get them.
func Name(reason string) string {
	if i := strings.LastIndex(reason, ": "); i >= 0 {
		return reason[i+len(": "):]
	}
	return reason
}

// OfTarget reports whether a reason in the journal has a target's name as its prefix: the
// spans were in the journal, and that target does not get them.
func OfTarget(reason string) bool {
	name := Name(reason)
	return name != reason && !slices.Contains(prefixes[:], strings.TrimSuffix(reason, name))
}

// To returns the reason, as the journal has it, for spans that a target with a name does
// not get.
func To(target string, r Reason) string { return target + ": " + r.String() }
