package ship

import (
	"errors"
	"maps"
	"os"
	"testing"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestTotals: what is counted outlives Runs and processes, and each is counted once.
func TestTotals(t *testing.T) {
	path := TotalsPath(t.TempDir(), "")
	if got, err := ReadTotals(path); err != nil || !got.Since.IsZero() {
		t.Fatalf("of nothing: %+v, %v", got, err)
	}
	note := func(l *Ledger, s Status) {
		t.Helper()
		if err := l.Note(s); err != nil {
			t.Fatal(err)
		}
	}
	l, err := OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	note(l, Status{Shipped: 3, Rejected: map[losses.Reason]int{losses.CollectorRefused: 1}})
	note(l, Status{Shipped: 5, KeptOut: 2, Err: errors.New("away"), Rejected: map[losses.Reason]int{losses.CollectorRefused: 1}})
	first, err := ReadTotals(path)
	if err != nil || first.Shipped != 5 || first.KeptOut != 2 || first.Error != "away" || first.Since.IsZero() || first.At.Before(first.Since) {
		t.Errorf("%+v, %v", first, err)
	}
	if l, err = OpenLedger(path); err != nil {
		t.Fatal(err)
	}
	note(l, Status{Shipped: 1})
	if l, err = OpenLedger(path); err != nil {
		t.Fatal(err)
	}
	note(l, Status{Shipped: 10, Rejected: map[losses.Reason]int{losses.CollectorRefused: 2, losses.Undecodable: 1}})
	got, err := ReadTotals(path)
	if err != nil || got.Shipped != 16 || got.KeptOut != 2 || got.Error != "" || !got.Since.Equal(first.Since) ||
		!maps.Equal(got.Rejected, map[string]uint64{"collector_refused": 3, "undecodable": 1}) {
		t.Errorf("%+v, %v", got, err)
	}
	// Nothing new is not written.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	note(l, Status{Shipped: 10, Rejected: map[losses.Reason]int{losses.CollectorRefused: 2, losses.Undecodable: 1}})
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing new is written: %v", err)
	}
	// What is no file of ours begins anew, and says so.
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = OpenLedger(path); err == nil || l == nil {
		t.Errorf("%v, %v", l, err)
	}
}
