package faults

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// A Ledger is what a load has asked for and what came of it. Its methods may be called
// concurrently.
type Ledger struct {
	mu       sync.Mutex
	calls    int
	failed   []string
	longest  time.Duration
	expected map[Expected]bool
	// The containers that a fault has cut off, by id.
	interrupted []string
}

// An Expected is a span that must be recorded, or counted as lost.
type Expected struct {
	Name            string // or its end
	Container, Exec string
}

// maxFailures bounds what a ledger keeps of failures; the count has them all.
const maxFailures = 20

func newLedger() *Ledger { return &Ledger{expected: map[Expected]bool{}} }

// call counts a call, and its failure if it is one.
func (l *Ledger) call(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if err != nil {
		l.failed = append(l.failed, fmt.Sprintf("%s %s: %v", time.Now().UTC().Format("15:04:05.000"), what, err))
	}
}

// took notes how long a call took that has nothing to wait for.
func (l *Ledger) took(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest = max(l.longest, d)
}

func (l *Ledger) expect(e Expected) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected[e] = true
}

// Calls returns how many calls were made and how many failed.
func (l *Ledger) Calls() (made, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls, len(l.failed)
}

// Failures tells the first failures, a line each.
func (l *Ledger) Failures() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.failed[:min(len(l.failed), maxFailures)], "\n")
}

// Longest returns the longest time that a call took that had nothing to wait for.
func (l *Ledger) Longest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.longest
}
