package losses

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	var l Ledger
	one, two := New(l.Of(Agents)), New(l.Of(Agents))
	one.Add(SpanRate, 2)
	two.Add(SpanRate, 3)
	two.Add(CPU, 1)
	two.Add(CPU, 0)
	l.Of(Ours).Add(QueueFull, 4)
	(*Tally)(nil).Add(CPU, 1)
	if got := (*Tally)(nil).Counts(); len(got) != 0 {
		t.Errorf("nothing: %v", got)
	}
	if got, want := two.Counts(), map[Reason]uint64{SpanRate: 3, CPU: 1}; !maps.Equal(got, want) {
		t.Errorf("one part: %v, want %v", got, want)
	}
	got := map[string]int{"queue_full": 1}
	l.Take(got)
	if want := map[string]int{"agent: span_rate": 5, "agent: cpu": 1, "queue_full": 5}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	l.Take(got)
	if got["queue_full"] != 5 {
		t.Errorf("taken twice: %v", got)
	}
	if one.Of(SpanRate) != 2 {
		t.Error("a part forgets what the journal has taken")
	}
}

func TestSplit(t *testing.T) {
	lost, intended := Split(map[string]int{"retention": 1, "kept_out": 2, "two: kept_out": 3, "agent: cpu": 4, "two: journal_full": 5})
	if want := map[string]int{"agent: cpu": 4, "two: journal_full": 5}; !maps.Equal(lost, want) {
		t.Errorf("lost: %v, want %v", lost, want)
	}
	if want := map[string]int{"retention": 1, "kept_out": 2, "two: kept_out": 3}; !maps.Equal(intended, want) {
		t.Errorf("intended: %v, want %v", intended, want)
	}
}

func TestOfTarget(t *testing.T) {
	for reason, want := range map[string]bool{"disk_full": false, "agent: cpu": false, "runtime: held_full": false, "otlp: busy_post": false, "two: disk_full": true, "default: kept_out": true} {
		if got := OfTarget(reason); got != want {
			t.Errorf("%q is of a target: %v", reason, got)
		}
	}
}

// TestDocument: docs/journal.md lists each reason and its meaning, in this order.
func TestDocument(t *testing.T) {
	var table strings.Builder
	table.WriteString("| reason | meaning |\n|---|---|\n")
	name, seen := regexp.MustCompile(`^[a-z_]+$`), make(map[string]bool)
	for _, r := range All() {
		if !name.MatchString(r.String()) || r.Meaning() == "" || seen[r.String()] {
			t.Errorf("reason %d: %q, %q", r, r, r.Meaning())
		}
		seen[r.String()] = true
		fmt.Fprintf(&table, "| `%s` | %s |\n", r, r.Meaning())
	}
	text, err := os.ReadFile("../../docs/journal.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), table.String()) {
		t.Errorf("docs/journal.md is to have this table:\n%s", table.String())
	}
	if got := reasons.String(); got != fmt.Sprintf("reason_%d", reasons) {
		t.Error(got)
	}
}
