package metrics

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
)

func write(t *testing.T, j *journal.Journal, rs ...*tracepb.ResourceSpans) {
	t.Helper()
	if err := journaltest.Append(j, rs); err != nil {
		t.Fatal(err)
	}
}

func openMeter(t *testing.T, dir string) *Meter {
	t.Helper()
	m, err := OpenMeter(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func (m *Meter) must(t *testing.T) {
	t.Helper()
	if err := m.Read(); err != nil {
		t.Fatal(err)
	}
	if err := m.Save(); err != nil {
		t.Fatal(err)
	}
}

// TestMeter: each span counts once, whatever process counts, and whatever is removed from the
// journal or moved in it meanwhile.
func TestMeter(t *testing.T) {
	dir := t.TempDir()
	j := journal.New(dir, journal.Options{SegmentBytes: 4 << 10, MaxBytes: 48 << 10})
	defer j.Close()
	r := rand.New(rand.NewPCG(1, 7))
	m := openMeter(t, dir)
	since := m.state.Since
	spans, starts := uint64(0), uint64(0)
	for i := range 600 {
		runtime := "r2" // little of it, which is moved
		if i%50 > 0 {
			runtime = fmt.Sprint("r", i%2)
		}
		write(t, j, spansOf(runtime, names.ShimScope, began(byte(i), time.Duration(1+r.IntN(1e9)), false), &tracepb.Span{Name: "more"}))
		spans, starts = spans+2, starts+1
		if r.IntN(4) == 0 {
			m.must(t)
		}
		if r.IntN(20) == 0 {
			m.must(t)
			m.Close()
			m = openMeter(t, dir)
		}
	}
	m.must(t)
	counted := uint64(0)
	for _, h := range m.state.Starts {
		counted += h.Count
	}
	if m.state.Recorded[originShim] != spans || counted != starts || len(m.state.Starts) != 3 || !m.state.Since.Equal(since) {
		t.Errorf("%d spans, %d starts of %d kinds, since %v; want %d, %d, 3, %v", m.state.Recorded[originShim], counted, len(m.state.Starts), m.state.Since, spans, starts, since)
	}
	moved := 0
	if _, err := journal.Scan(dir, func(r journal.Record) error {
		if r.Moved {
			moved++
		}
		return nil
	}); err != nil || moved == 0 {
		t.Errorf("%d records were moved: %v", moved, err)
	}
}

// TestMeterBeginsLate: what was in the journal before the first count is counted, also what
// was moved by then, each once; and so is what came while nobody counted.
func TestMeterBeginsLate(t *testing.T) {
	dir := t.TempDir()
	j := journal.New(dir, journal.Options{SegmentBytes: 4 << 10, MaxBytes: 48 << 10, Shipped: true})
	defer j.Close()
	there := func() (n uint64) {
		seen := make(map[string]bool)
		if _, err := journal.Scan(dir, func(r journal.Record) error {
			if key := r.Time.String(); r.Kind.Traces() && !seen[key] {
				seen[key] = true
				n += uint64(r.Spans)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	fill := func() {
		t.Helper()
		write(t, j, spansOf("small", names.ShimScope, &tracepb.Span{Name: "kept"}))
		for range 600 {
			write(t, j, spansOf("big", names.ShimScope, &tracepb.Span{Name: "floods"}))
		}
	}
	fill()
	m := openMeter(t, dir)
	m.must(t)
	first := m.state.Recorded[originShim]
	if want := there(); first != want || first == 601 {
		t.Errorf("%d spans are counted, want %d of 601", first, want)
	}
	if !m.state.Since.Before(time.Now()) || m.state.Since.IsZero() {
		t.Errorf("since %v", m.state.Since)
	}
	m.Close()
	before := time.Now()
	fill() // nobody counts
	m = openMeter(t, dir)
	m.must(t)
	late := uint64(0)
	if _, err := journal.Scan(dir, func(r journal.Record) error {
		if r.Kind.Traces() && r.Time.After(before) {
			late += uint64(r.Spans)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := m.state.Recorded[originShim] - first; got != late || late == 0 {
		t.Errorf("%d spans that came while nobody counted, want %d", got, late)
	}
}

// TestMeterForgets: a file that is none of ours begins anew, and says so.
func TestMeterForgets(t *testing.T) {
	for _, text := range []string{"nonsense", `{"version": 99}`, `{"version": 1, "starts": {"strange": {}}}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, stateName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := OpenMeter(dir)
		if err == nil || m == nil || m.state.Since.IsZero() {
			t.Errorf("%s: %v", text, err)
		}
		m.Close()
	}
}

// TestLostNeverFalls: the journal's counts fall while a segment is removed, and the metric's
// do not; those of relays begin anew with each process.
func TestLostNeverFalls(t *testing.T) {
	m := openMeter(t, t.TempDir())
	reason := losses.QueueFull.String()
	for _, tt := range []struct{ now, want int }{{3, 3}, {1, 3}, {5, 5}} {
		m.lost(map[string]int{reason: tt.now})
		if got := m.state.Lost[reason]; got != uint64(tt.want) {
			t.Errorf("%d after %d", got, tt.now)
		}
	}
	for _, tt := range []struct {
		now  map[string]uint64
		want uint64
	}{{map[string]uint64{"a 1": 4}, 4}, {map[string]uint64{"a 1": 6, "b 2": 1}, 7}, {map[string]uint64{"b 2": 1}, 7}, {map[string]uint64{"a 3": 2, "b 2": 2}, 10}} {
		if m.reparented(tt.now); m.state.Reparented != tt.want {
			t.Errorf("%d after %v, want %d", m.state.Reparented, tt.now, tt.want)
		}
	}
}

// TestLostToTarget: what one target does not get is lost behind the journal, and so not on the
// way to it.
func TestLostToTarget(t *testing.T) {
	m := openMeter(t, t.TempDir())
	before := "agent: " + losses.SpanRate.String()
	m.lost(map[string]int{
		before: 1, losses.JournalFull.String(): 2,
		losses.To("backup", losses.JournalFull): 4, losses.To("backup", losses.KeptOut): 8,
		// What cannot be moved for it when a segment is removed, which has the reason of a write.
		losses.To("backup", losses.DiskFull): 16, losses.To("backup", losses.WriteFailed): 32,
	})
	b := newBatch(time.Now())
	b.addMeter(m)
	var got []string
	for _, p := range b.sums[spanProcessed.name] {
		if why, ok := p.Attributes.Value(attrError); ok {
			got = append(got, why.AsString())
		}
	}
	if !slices.Equal(got, []string{before}) {
		t.Errorf("lost on the way to the journal: %q", got)
	}
	if n := len(b.sums[spanLost.name]); n != 6 {
		t.Errorf("%d reasons of losses", n)
	}
}

// TestKindsAreBounded: no number of runtimes makes more than maxKinds histograms and two.
func TestKindsAreBounded(t *testing.T) {
	m := openMeter(t, t.TempDir())
	for i := range 3 * maxKinds {
		m.started(start{runtime: fmt.Sprint(i), took: 1, failed: i%2 == 0})
	}
	n := uint64(0)
	for _, h := range m.state.Starts {
		n += h.Count
	}
	if len(m.state.Starts) > maxKinds+2 || n != 3*maxKinds {
		t.Errorf("%d kinds of %d starts", len(m.state.Starts), n)
	}
}
