package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/loglimit"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// forwardReport says on stderr what happens: on a terminal one line that changes,
// otherwise a line when something has changed that matters.
type forwardReport struct {
	h     *host
	level slog.Level
	live  bool

	warnings loglimit.Limiter

	mu   sync.Mutex
	line string // on the terminal
}

func newForwardReport(h *host, level slog.Level) *forwardReport {
	return &forwardReport{h: h, level: level, live: terminal(h.stderr) > 0}
}

func (r *forwardReport) info(format string, args ...any) {
	r.say(slog.LevelInfo, fmt.Sprintf(format, args...))
}

// warn says what went wrong; the same again and again is said once a minute.
func (r *forwardReport) warn(err error) {
	if err == nil {
		return
	}
	swallowed, ok := r.warnings.Allow("warning", err.Error())
	switch {
	case !ok:
	case swallowed > 0:
		r.say(slog.LevelWarn, fmt.Sprintf("%v (and %d times before)", err, swallowed))
	default:
		r.say(slog.LevelWarn, err.Error())
	}
}

func (r *forwardReport) say(level slog.Level, text string) {
	if level < r.level {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	r.h.warn("%s", waterfall.Clean(text))
	r.draw()
}

func (r *forwardReport) clear() {
	if r.live && r.line != "" {
		fmt.Fprint(r.h.stderr, "\r\x1b[K")
	}
}

func (r *forwardReport) draw() {
	if r.live && r.line != "" {
		fmt.Fprint(r.h.stderr, "\r\x1b[K"+waterfall.Fit(r.line, max(20, terminal(r.h.stderr)-1)))
	}
}

// Intervals of looking at the counts.
const (
	liveInterval  = 500 * time.Millisecond
	plainInterval = 5 * time.Second
)

// watch tells how it goes until ctx is done.
func (r *forwardReport) watch(ctx context.Context, status func() forwardStatus) {
	interval := plainInterval
	if r.live {
		interval = liveInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	before := fmt.Sprint(0, "", "", true)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s := status()
		if r.live {
			r.mu.Lock()
			r.line = s.line(s.Connections)
			r.draw()
			r.mu.Unlock()
			continue
		}
		// That spans come and go is no news.
		matters := fmt.Sprint(s.Connections, s.lost(), s.refused(), s.shipError() == "")
		if matters != before {
			r.info("%s", s.line(s.Connections))
		}
		before = matters
	}
}

// end says what has been.
func (r *forwardReport) end(s forwardStatus, asJSON bool) error {
	r.mu.Lock()
	r.clear()
	r.line = ""
	r.mu.Unlock()
	if asJSON {
		return json.NewEncoder(r.h.stdout).Encode(s.summary())
	}
	waits := ""
	if failure := s.shipError(); failure != "" {
		s.ship.Err = nil // nobody tries again
		waits = fmt.Sprintf("; what is not shipped waits in the journal %s: %s", s.journal, failure)
	}
	r.info("%s%s", s.line(int(s.Accepted)), waits)
	return nil
}

// line tells the counts, with so many connections.
func (s forwardStatus) line(connections int) string {
	parts := []string{fmt.Sprintf("%d connections", connections), spanCount(int(s.Delivered))}
	if connections == 1 {
		parts[0] = "1 connection"
	}
	if text := s.lost(); text != "" {
		parts = append(parts, text)
	}
	if text := s.refused(); text != "" {
		parts = append(parts, text)
	}
	if s.ship != nil {
		parts = append(parts, statusLine(*s.ship))
	}
	return strings.Join(parts, ", ")
}

func (s forwardStatus) lost() string    { return byReason("lost", s.Lost) }
func (s forwardStatus) refused() string { return byReason("connections refused", s.Refused) }

func (s forwardStatus) shipError() string {
	if s.ship == nil || s.ship.Err == nil {
		return ""
	}
	return s.ship.Err.Error()
}

// byReason tells counts with their reasons, nothing if there are none.
func byReason(what string, counts map[string]uint64) string {
	total, reasons := uint64(0), []string{}
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		total += counts[reason]
		reasons = append(reasons, fmt.Sprintf("%s: %d", reason, counts[reason]))
	}
	if total == 0 {
		return ""
	}
	return fmt.Sprintf("%d %s (%s)", total, what, strings.Join(reasons, ", "))
}

// forwardSummary is what --json prints.
type forwardSummary struct {
	Connections uint64 `json:"connections"`
	// Refused connections by reason.
	Refused map[string]uint64 `json:"refused,omitempty"`
	Bytes   uint64            `json:"bytes"`
	// Spans have arrived and could be read; of these, Recorded are in the journal
	// (placeholders included) and Quiet ones are not wanted there.
	Spans    uint64 `json:"spans"`
	Recorded uint64 `json:"recorded"`
	Quiet    uint64 `json:"quiet"`
	// Lost spans by reason.
	Lost    map[string]uint64 `json:"lost,omitempty"`
	Journal string            `json:"journal,omitempty"`
	// Shipped spans, also those that were in the journal before; absent where
	// nothing is shipped.
	Shipped  *int           `json:"shipped,omitempty"`
	Rejected map[string]int `json:"rejected,omitempty"`
	// ShipError is why the last attempt failed, if so.
	ShipError string `json:"ship_error,omitempty"`
}

func (s forwardStatus) summary() forwardSummary {
	sum := forwardSummary{
		Connections: s.Accepted, Refused: s.Refused, Bytes: s.Bytes, Spans: s.Delivered, Recorded: s.Sent,
		Quiet: s.Unwanted, Lost: s.Lost, Journal: s.journal, ShipError: s.shipError(),
	}
	if s.ship != nil {
		sum.Shipped, sum.Rejected = &s.ship.Shipped, s.ship.Rejected
	}
	return sum
}
