package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// Account holds a load that has ended against what is recorded and what has been
// delivered, and returns the row of docs/reliability.md. lost is how many pods were.
// recv may be nil.
//
// It fails the test if a pod was lost, or a span that was expected is neither recorded
// nor counted as lost.
func Account(t testing.TB, l *Load, lost int, recv *otlprecv.Receiver) *reliability.Load {
	t.Helper()
	made, failed := l.Calls()
	spans, drops := recorded(t, l.in.Journal)
	row := &reliability.Load{
		Pods: l.podCount(), PodsLost: lost, Calls: made, CallsFailed: failed,
		Recorded: len(spans), Lost: drops, LongestPause: l.Longest(),
	}
	if recv != nil {
		row.Delivered, row.Duplicated = Delivered(recv)
	}
	if lost > 0 {
		t.Errorf("%d of %d pods were lost", lost, row.Pods)
	}
	missing := l.missing(spans)
	counted := 0
	for reason, n := range drops {
		if reason != losses.Retention.String() {
			counted += n
		}
	}
	if len(missing) > counted {
		t.Errorf("%d of %d expected spans are not recorded, and %d counted as lost: %v ...", len(missing), len(l.expected), counted, missing[:min(len(missing), 10)])
	}
	t.Logf("%d of %d pods lost; %d of %d calls failed; %d spans recorded, %d of %d expected ones missing; %d delivered, %d twice; lost %v; longest pause %s",
		lost, row.Pods, failed, made, row.Recorded, len(missing), len(l.expected), row.Delivered, row.Duplicated, drops, row.LongestPause.Round(time.Millisecond))
	if failed > 0 {
		t.Logf("calls failed:\n%s", l.Failures())
	}
	return row
}

// recorded reads a journal: its spans by trace and span id, and what it has counted as
// lost.
func recorded(t testing.TB, dir string) (map[string]otlprecv.Span, map[string]int) {
	t.Helper()
	spans, drops := map[string]otlprecv.Span{}, map[string]int{}
	_, err := journal.Scan(dir, func(r journal.Record) error {
		switch r.Kind {
		case journal.KindTraces:
			td, err := r.Traces()
			if err != nil {
				return err
			}
			for _, s := range otlprecv.Flatten(td.GetResourceSpans()) {
				spans[s.TraceID+s.ID] = s
			}
		case journal.KindDrops:
			d, err := r.Drops()
			if err != nil {
				return err
			}
			for reason, n := range d {
				drops[reason] += n
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("read the journal: %v", err)
	}
	return spans, drops
}

// Delivered returns how many spans a collector has, each once, and how many copies besides.
func Delivered(recv *otlprecv.Receiver) (once, again int) {
	seen := map[string]bool{}
	for _, s := range recv.Spans() {
		if seen[s.TraceID+s.ID] {
			again++
		}
		seen[s.TraceID+s.ID] = true
	}
	return len(seen), again
}

// missing returns what was expected and is not there.
func (l *Ledger) missing(spans map[string]otlprecv.Span) (missing []string) {
	have := map[Expected]bool{}
	for _, s := range spans {
		name := s.Name
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			name = name[i:]
		}
		container, _ := s.Attrs["container.id"].(string)
		if container == "" {
			container, _ = s.Resource["shimtrace.sandbox.id"].(string)
		}
		exec, _ := s.Attrs["shimtrace.exec.id"].(string)
		have[Expected{name, container, exec}] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := range l.expected {
		if !have[e] {
			missing = append(missing, fmt.Sprint(e))
		}
	}
	return missing
}
