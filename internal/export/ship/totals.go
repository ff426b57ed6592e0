package ship

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/private"
)

// Totals are what all processes together have shipped of a journal to a target, and how it
// went the last time. They are in a file beside the cursor.
type Totals struct {
	// Since is when counting began.
	Since time.Time `json:"since"`
	// Shipped spans were taken. Rejected spans are lost, by reason; KeptOut are not shipped.
	Shipped  uint64            `json:"shipped"`
	Rejected map[string]uint64 `json:"rejected,omitempty"`
	KeptOut  uint64            `json:"kept_out,omitempty"`
	// Error is why the last attempt failed, empty if it did not.
	Error string `json:"error,omitempty"`
	// At is when this changed last.
	At time.Time `json:"at"`
}

// maxTotals bounds the file, in bytes.
const maxTotals = 64 << 10

// TotalsPath is the file of the totals of a journal's shipments to a target.
func TotalsPath(dir, target string) string {
	if target != "" {
		target += "."
	}
	return filepath.Join(dir, "totals."+target+"json")
}

// Forget removes what is kept of a target that a journal is no longer shipped to.
func Forget(dir, target string) error {
	err := journal.Forget(dir, target)
	if err == nil {
		err = os.Remove(TotalsPath(dir, target))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ReadTotals returns the totals in a file, zero if there is no file.
func ReadTotals(path string) (t Totals, err error) {
	text, err := private.Read(path, maxTotals)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, fmt.Errorf("totals of what was shipped: %w", err)
	}
	if err := json.Unmarshal(text, &t); err != nil {
		return Totals{}, fmt.Errorf("totals of what was shipped: %s: %w", path, err)
	}
	return t, nil
}

// Ledger keeps Totals up to date. It is safe for concurrent use.
type Ledger struct {
	path string

	mu     sync.Mutex
	totals Totals
	last   Status
	saved  []byte
}

// OpenLedger returns the Ledger of a file, for one Run. Totals that cannot be read begin anew.
func OpenLedger(path string) (*Ledger, error) {
	t, err := ReadTotals(path)
	if t.Since.IsZero() {
		t.Since = time.Now()
	}
	return &Ledger{path: path, totals: t}, err
}

// Note takes the progress of a Run, the only one of this Ledger, and writes the totals if they
// have changed.
func (l *Ledger) Note(now Status) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.totals
	t.Shipped += uint64(max(0, now.Shipped-l.last.Shipped))
	t.KeptOut += uint64(max(0, now.KeptOut-l.last.KeptOut))
	for reason, n := range now.Rejected {
		if d := n - l.last.Rejected[reason]; d > 0 {
			if t.Rejected == nil {
				t.Rejected = make(map[string]uint64)
			}
			t.Rejected[reason.String()] += uint64(d)
		}
	}
	t.Error = ""
	if now.Err != nil {
		t.Error = now.Err.Error()
	}
	l.last = now
	return l.save()
}

// save writes the totals with the time of their last change.
func (l *Ledger) save() error {
	same := l.totals
	same.At = time.Time{}
	text, err := json.Marshal(same)
	if err != nil || string(text) == string(l.saved) {
		return err
	}
	l.totals.At = time.Now()
	out, err := json.Marshal(l.totals)
	if err == nil {
		err = private.Replace(l.path, l.path+".tmp", out, 0o600)
	}
	if err != nil {
		return fmt.Errorf("totals of what was shipped: %w", err)
	}
	l.saved = text
	return nil
}
