package stats

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Options say how Write writes.
type Options struct {
	// Width is the terminal's in cells, 0: 80.
	Width int
	// Location is the time zone; nil is local time.
	Location *time.Location
}

// Write writes a table for each runtime.
func Write(w io.Writer, all []Runtime, o Options) error {
	if o.Width == 0 {
		o.Width = 80
	}
	if o.Location == nil {
		o.Location = time.Local
	}
	var out strings.Builder
	for i, r := range all {
		if i > 0 {
			out.WriteByte('\n')
		}
		line(&out, o.Width, heading(r, o.Location))
		if len(r.Phases) > 0 {
			table(&out, o.Width, r.Phases)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func heading(r Runtime, in *time.Location) string {
	name := waterfall.Clean(r.Name)
	if name == "" {
		name = "(unknown runtime)"
	}
	starts := fmt.Sprintf("%d starts", r.Starts)
	if r.Starts == 1 {
		starts = "1 start"
	}
	if r.Failed > 0 {
		starts += fmt.Sprintf(", %d failed or unfinished", r.Failed)
	}
	const layout = "2006-01-02 15:04"
	from, to := r.First.In(in).Format(layout), r.Last.In(in).Format(layout)
	if from != to {
		from += " to " + to
	}
	return name + ": " + starts + ", " + from
}

// Widths in cells: of a name, of a number, and the least of a sparkline.
const (
	nameCells   = 14
	numberCells = 8
	fewest      = 8
)

func table(out *strings.Builder, width int, phases []Summary) {
	head := waterfall.Pad("  PHASE", nameCells+2)
	for _, title := range []string{"STARTS", "P50", "P95", "P99", "MAX"} {
		head += fmt.Sprintf("%*s", numberCells, title)
	}
	room := width - waterfall.Width(head) - 2
	if room >= fewest {
		head += "  MEDIANS"
	}
	line(out, width, head)
	for _, p := range phases {
		text := "  " + waterfall.Pad(waterfall.Clean(p.Name), nameCells) + fmt.Sprintf("%*d", numberCells, p.Count)
		for _, d := range []time.Duration{p.P50, p.P95, p.P99, p.Max} {
			text += waterfall.PadLeft(" "+waterfall.Duration(d), numberCells)
		}
		if room >= fewest {
			text += "  " + waterfall.Fit(sparkline(p.Medians), room)
		}
		line(out, width, text)
	}
}

func line(out *strings.Builder, width int, text string) {
	out.WriteString(strings.TrimRight(waterfall.Fit(text, width), " ") + "\n")
}

// sparkline draws durations as bars from 0 to the longest, a dot where there is none.
func sparkline(all []time.Duration) string {
	most := time.Duration(1)
	for _, d := range all {
		most = max(most, d)
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, d := range all {
		if d == 0 {
			b.WriteRune('·')
			continue
		}
		b.WriteRune(bars[min(len(bars)-1, int(float64(d)/float64(most)*float64(len(bars))))])
	}
	return b.String()
}

// summaryJSON is a phase of a runtime for scripts; durations are in nanoseconds.
type summaryJSON struct {
	Runtime string          `json:"runtime"`
	Phase   string          `json:"phase"`
	Starts  int             `json:"starts"`
	P50     time.Duration   `json:"p50_ns"`
	P95     time.Duration   `json:"p95_ns"`
	P99     time.Duration   `json:"p99_ns"`
	Max     time.Duration   `json:"max_ns"`
	Medians []time.Duration `json:"medians_ns"`
	From    time.Time       `json:"from"`
	To      time.Time       `json:"to"`
	Failed  int             `json:"failed_starts"` // of the runtime
}

// WriteJSON writes one JSON object a line for each phase of each runtime.
func WriteJSON(w io.Writer, all []Runtime) error {
	enc := json.NewEncoder(w)
	for _, r := range all {
		for _, p := range r.Phases {
			if err := enc.Encode(summaryJSON{r.Name, p.Name, p.Count, p.P50, p.P95, p.P99, p.Max, p.Medians, r.First, r.Last, r.Failed}); err != nil {
				return err
			}
		}
	}
	return nil
}
