package metrics

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/private"
)

// Meter counts what is recorded in a journal. What it has counted is in a file in the
// journal's directory, so that the next process goes on with it. It is not safe for concurrent
// use.
type Meter struct {
	dir      string
	state    counted
	follower *journal.Follower
}

// counted is what outlives the process.
type counted struct {
	Version int `json:"version"`
	// Since is when counting began.
	Since  time.Time      `json:"since"`
	Cursor journal.Cursor `json:"cursor"`
	// Last is the time of the last record.
	Last time.Time `json:"last"`
	// Gap has the records that were in the journal while nobody counted, and were moved
	// before somebody did.
	Gap gap `json:"gap"`

	// Recorded counts spans by origin, Lost by reason, as the journal has them.
	Recorded map[string]uint64 `json:"recorded"`
	Lost     map[string]uint64 `json:"lost"`
	// Starts are the durations of starts.
	Starts map[startKind]*histogram `json:"starts"`
	// Reparented counts spans; Relays has what each relay has said last.
	Reparented uint64            `json:"reparented"`
	Relays     map[string]uint64 `json:"relays"`
}

// gap is a time, and the last segment with records of that time that were moved.
type gap struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Through uint64    `json:"through"`
}

// startKind is what starts are told apart by.
type startKind struct {
	Runtime string
	Failed  bool
}

// MarshalText implements [encoding.TextMarshaler].
func (k startKind) MarshalText() ([]byte, error) {
	if k.Failed {
		return []byte("failed " + k.Runtime), nil
	}
	return []byte("ok " + k.Runtime), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *startKind) UnmarshalText(b []byte) error {
	how, runtime, found := strings.Cut(string(b), " ")
	if !found || how != "ok" && how != "failed" {
		return fmt.Errorf("%q is no kind of start", b)
	}
	*k = startKind{runtime, how == "failed"}
	return nil
}

const (
	stateName    = "metrics.json"
	stateVersion = 1
	// maxState bounds the file, in bytes; maxKinds what starts are told apart by.
	maxState = 1 << 20
	maxKinds = 64
)

// OpenMeter returns the Meter of the journal in a directory. If what was counted cannot be
// read, it begins with what is in the journal, and says why.
func OpenMeter(dir string) (*Meter, error) {
	m := &Meter{dir: dir}
	err := m.read()
	begun, last, jerr := journal.Ends(dir)
	if m.state.Since.IsZero() {
		m.state = counted{Version: stateVersion, Since: time.Now(), Gap: gap{To: begun, Through: last}}
		if !begun.IsZero() {
			m.state.Since = begun
		}
	} else if at := m.state.Cursor.Segment; at != 0 && !journal.Has(dir, at) {
		m.state.Gap = gap{From: m.state.Last, To: begun, Through: last}
	}
	s := &m.state
	for _, counts := range []*map[string]uint64{&s.Recorded, &s.Lost, &s.Relays} {
		if *counts == nil {
			*counts = make(map[string]uint64)
		}
	}
	if s.Starts == nil {
		s.Starts = make(map[startKind]*histogram)
	}
	m.follower = journal.Follow(dir, s.Cursor)
	return m, errors.Join(err, jerr)
}

func (m *Meter) path() string { return filepath.Join(m.dir, stateName) }

func (m *Meter) read() error {
	text, err := private.Read(m.path(), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var s counted
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil && s.Version != stateVersion {
		err = fmt.Errorf("it has version %d", s.Version)
	}
	if err != nil {
		return fmt.Errorf("what was counted for metrics begins anew: %s: %w", m.path(), err)
	}
	m.state = s
	return nil
}

// Save writes what was counted.
func (m *Meter) Save() error {
	m.state.Cursor = m.follower.Cursor()
	text, err := json.Marshal(m.state)
	if err == nil {
		err = private.Replace(m.path(), m.path()+".tmp", text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("what was counted for metrics: %w", err)
	}
	return nil
}

// Close closes the journal.
func (m *Meter) Close() { m.follower.Close() }

// Read counts what has come, to the journal's end.
func (m *Meter) Read() error {
	for {
		r, err := m.follower.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("metrics: %w", err)
		case !r.Kind.Traces() || r.Moved && !m.state.Gap.has(r):
			continue
		}
		if !r.Moved && r.Time.After(m.state.Last) {
			m.state.Last = r.Time
		}
		if r.Kind == journal.KindPosted {
			m.state.Recorded[originProgram] += uint64(r.Spans)
			continue
		}
		walk(r.Payload, func(origin string, n int) { m.state.Recorded[origin] += uint64(n) }, m.started)
	}
}

// has reports whether a record that was moved is in the gap, and so has not been counted before.
func (g gap) has(r journal.Record) bool {
	return r.Segment <= g.Through && r.Time.After(g.From) && r.Time.Before(g.To)
}

func (m *Meter) started(s start) {
	kind := startKind{s.runtime, s.failed}
	h := m.state.Starts[kind]
	if h == nil {
		if len(m.state.Starts) >= maxKinds {
			kind = startKind{"other", s.failed}
			h = m.state.Starts[kind]
		}
		if h == nil {
			h = new(histogram)
			m.state.Starts[kind] = h
		}
	}
	seconds := s.took.Seconds()
	h.add(seconds, metricdata.Exemplar[float64]{Time: s.ended, Value: seconds, TraceID: s.trace[:], SpanID: s.span[:]})
}

// lost takes the journal's counts of lost spans, which fall for a moment while a segment is
// removed.
func (m *Meter) lost(now map[string]int) {
	for reason, n := range now {
		m.state.Lost[reason] = max(m.state.Lost[reason], uint64(max(0, n)))
	}
}

// reparented takes what relays say now, each by a name that no other relay process has.
func (m *Meter) reparented(now map[string]uint64) {
	for relay, n := range now {
		if before := m.state.Relays[relay]; n > before {
			m.state.Reparented += n - before
		}
	}
	m.state.Relays = now
}
