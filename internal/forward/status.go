package forward

import (
	"fmt"
	"strings"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/losses"
)

func (s status) console() console.Status {
	return console.Status{
		Line:    s.line(s.Connections),
		Matters: fmt.Sprint(s.Connections, s.shipError() == ""),
		Losses:  s.lost() + s.refused(),
	}
}

// end returns the last line of the output.
func (s status) end() string {
	waits := ""
	if failure := s.shipError(); failure != "" {
		for i := range s.shipped {
			s.shipped[i].Err = nil // nobody tries again
		}
		waits = fmt.Sprintf("; what is not shipped waits in the journal %s: %s", s.journal, failure)
	}
	return s.line(int(s.Accepted)) + waits
}

// line returns the counts in one line.
func (s status) line(connections int) string {
	parts := []string{fmt.Sprintf("%d connections", connections), console.Spans(int(s.Delivered))}
	if connections == 1 {
		parts[0] = "1 connection"
	}
	if text := s.lost(); text != "" {
		parts = append(parts, text)
	}
	if text := s.refused(); text != "" {
		parts = append(parts, text)
	}
	for _, to := range s.shipped {
		parts = append(parts, to.Line())
	}
	return strings.Join(parts, ", ")
}

func (s status) lost() string    { return console.ByReason("lost", s.Lost) }
func (s status) refused() string { return console.ByReason("connections refused", s.Refused) }

func (s status) shipError() string {
	for _, to := range s.shipped {
		if to.Err != nil {
			return to.Err.Error()
		}
	}
	return ""
}

// summary is what --json prints.
type summary struct {
	Connections uint64 `json:"connections"`
	// Refused counts refused connections by reason.
	Refused map[string]uint64 `json:"refused,omitempty"`
	Bytes   uint64            `json:"bytes"`
	// Spans counts spans that arrived and could be read. Of these, Recorded are in the
	// journal (placeholders included), and Quiet ones are not wanted there.
	Spans    uint64 `json:"spans"`
	Recorded uint64 `json:"recorded"`
	Quiet    uint64 `json:"quiet"`
	// Lost counts lost spans by reason.
	Lost    map[losses.Reason]uint64 `json:"lost,omitempty"`
	Journal string                   `json:"journal,omitempty"`
	// Shipped counts spans shipped to all targets, including those that were in the journal before;
	// absent if nothing is shipped.
	Shipped  *int                  `json:"shipped,omitempty"`
	Rejected map[losses.Reason]int `json:"rejected,omitempty"`
	// ShipError is why the last attempt failed, if it did.
	ShipError string `json:"ship_error,omitempty"`
}

func (s status) summary() summary {
	sum := summary{
		Connections: s.Accepted, Refused: s.Refused, Bytes: s.Bytes, Spans: s.Delivered, Recorded: s.Sent,
		Quiet: s.Unwanted, Lost: s.Lost, Journal: s.journal, ShipError: s.shipError(),
	}
	for _, to := range s.shipped {
		if sum.Shipped == nil {
			sum.Shipped, sum.Rejected = new(int), make(map[losses.Reason]int)
		}
		*sum.Shipped += to.Shipped
		for reason, spans := range to.Rejected {
			sum.Rejected[reason] += spans
		}
	}
	return sum
}
