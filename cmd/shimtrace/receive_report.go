package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/route"
)

// receiveStatus is what has happened so far.
type receiveStatus struct {
	route.Snapshot
	posts    uint64            // that could be read
	exporter uint64            // spans of the exporter itself, dropped
	refused  map[string]uint64 // posts by reason
}

func (s *receiveStatus) refuse(reason string, n uint64) {
	if s.refused == nil {
		s.refused = make(map[string]uint64)
	}
	s.refused[reason] += n
}

// line tells the counts.
func (s receiveStatus) line() string {
	sandboxes := fmt.Sprintf("%d sandboxes", s.Relays)
	if s.Relays == 1 {
		sandboxes = "1 sandbox"
	}
	parts := []string{sandboxes, spanCount(int(s.Arrived))}
	if s.exporter > 0 {
		parts = append(parts, fmt.Sprintf("%d of the exporter's own left out", s.exporter))
	}
	if s.Held > 0 {
		parts = append(parts, fmt.Sprintf("%d held", s.Held))
	}
	for _, text := range []string{byReason("lost", s.Lost), byReason("posts refused", s.refused), byReason("connections not listened to", s.Turned)} {
		if text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, ", ")
}

// receiveReport says on stderr what happens, as that of forward does.
type receiveReport struct{ *forwardReport }

// newsInterval is between two lines about losses: others may cause these as often as
// they like.
const newsInterval = time.Minute

// watch tells how it goes until ctx is done, and calls tell from time to time.
func (r *receiveReport) watch(ctx context.Context, status func() receiveStatus, tell func()) {
	tick := time.NewTicker(liveInterval)
	defer tick.Stop()
	relays, losses := 0, ""
	var told, said time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if time.Since(told) >= plainInterval {
			tell()
			told = time.Now()
		}
		s := status()
		if r.live {
			r.mu.Lock()
			r.line = s.line()
			r.draw()
			r.mu.Unlock()
			continue
		}
		// That spans come is no news.
		news := byReason("", s.Lost) + byReason("", s.refused)
		if s.Relays != relays || news != losses && time.Since(said) >= newsInterval {
			r.info("%s", s.line())
			relays, losses, said = s.Relays, news, time.Now()
		}
	}
}

// end says what has been.
func (r *receiveReport) end(s receiveStatus) {
	r.mu.Lock()
	r.clear()
	r.line = ""
	r.mu.Unlock()
	r.info("%s", s.line())
}
