// Package losses counts spans that do not arrive, by reason: each reason once, with the
// sentence that docs/journal.md has on it. Whoever loses spans has a pointer to a Tally;
// what is counted there is counted in the journal as well.
package losses

import "sync/atomic"

// A Tally counts spans by reason. Its zero value is ready; a nil one counts nothing. It
// is safe for concurrent use, and never waits.
type Tally struct {
	above *Tally
	n     [reasons]atomic.Uint64
}

// New returns a Tally of a part of what above counts, which may be nil: what is added to
// the one is added to the other.
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

// Counts returns how many spans were lost, by the reasons that there were.
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
	// Ours are made here, or come out of the journal.
	Ours Whose = iota
	// Agents and Runtimes are brought here.
	Agents
	Runtimes

	whoses
)

// prefixes are what stands before a reason in the journal.
var prefixes = [whoses]string{Agents: "agent: ", Runtimes: "runtime: "}

// A Ledger has the Tallies of one journal. Its zero value is ready.
type Ledger [whoses]Tally

// Of returns the Tally of some spans.
func (l *Ledger) Of(w Whose) *Tally { return &l[w] }

// Take adds to m what was counted since it was last called, by reason with whose spans
// they were before it.
func (l *Ledger) Take(m map[string]int) {
	for w := range l {
		for _, r := range All() {
			if n := l[w].n[r].Swap(0); n > 0 {
				m[prefixes[w]+r.String()] += int(n)
			}
		}
	}
}
