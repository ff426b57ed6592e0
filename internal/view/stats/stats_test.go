package stats

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

var begin = time.Date(2026, 8, 12, 10, 0, 0, 0, time.UTC)

// hundred are a hundred starts of 1 to 100 ms, a minute apart, slower and slower, of
// which every fourth has a second layer; and two that failed.
func hundred() (starts []Start) {
	for i := range 100 {
		s := Start{At: begin.Add(time.Duration(i) * time.Minute), Runtime: "runc", Phases: []Phase{{"start", time.Duration(i+1) * time.Millisecond}}}
		if i%4 == 0 {
			s.Phases = append(s.Phases, Phase{"network", time.Second})
		}
		starts = append(starts, s)
	}
	return append(starts, Start{At: begin, Runtime: "runc", Failed: true}, Start{At: begin, Runtime: "kata\x1b[2J", Failed: true})
}

func TestSummarize(t *testing.T) {
	all := Summarize(hundred())
	if len(all) != 2 || all[0].Name != "runc" || all[0].Starts != 100 || all[0].Failed != 1 || all[1].Failed != 1 || all[1].Starts != 0 {
		t.Fatalf("%+v", all)
	}
	whole, network := all[0].Phases[0], all[0].Phases[1]
	ms := time.Millisecond
	if whole.Name != "start" || whole.Count != 100 || whole.P50 != 50*ms || whole.P95 != 95*ms || whole.P99 != 99*ms || whole.Max != 100*ms {
		t.Errorf("%+v", whole)
	}
	if network.Count != 25 || network.P50 != time.Second {
		t.Errorf("%+v", network)
	}
	for i, d := range whole.Medians {
		if i > 0 && d <= whole.Medians[i-1] {
			t.Errorf("the medians do not rise: %v", whole.Medians)
		}
	}
	if got := Summarize([]Start{{At: begin, Runtime: "x", Phases: []Phase{{"start", ms}}}}); got[0].Phases[0].P99 != ms {
		t.Errorf("of a single start: %+v", got)
	}
}

func TestWrite(t *testing.T) {
	for _, width := range []int{0, 40, 60, 80, 200} {
		var out bytes.Buffer
		if err := Write(&out, Summarize(hundred()), Options{Width: width, Location: time.UTC}); err != nil {
			t.Fatal(err)
		}
		if width == 0 {
			width = 80
		}
		for line := range strings.Lines(out.String()) {
			if cells := waterfall.Width(strings.TrimSuffix(line, "\n")); cells > width {
				t.Errorf("%d cells of %d: %q", cells, width, line)
			}
		}
		if strings.ContainsRune(out.String(), '\x1b') {
			t.Error("an escape sequence got through")
		}
		if width < 80 {
			continue
		}
		for _, want := range []string{
			"runc: 100 starts, 1 failed or unfinished, 2026-08-12 10:00 to 2026-08-12 11:39\n",
			"  start              100  50.0ms  95.0ms  99.0ms   100ms  ▁▁▂▂▃▃▄▄▅▅▆▆▇▇██\n",
			"kata␛[2J: 0 starts, 1 failed or unfinished, 2026-08-12 10:00\n",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
	}
}

func TestWriteJSON(t *testing.T) {
	var out bytes.Buffer
	if err := WriteJSON(&out, Summarize(hundred())); err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(out.String(), "\n")
	var s summaryJSON
	if err := json.Unmarshal([]byte(first), &s); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(s.Runtime, s.Phase, s.Starts, s.P95, len(s.Medians), s.Failed); got != "runcstart100 95ms 16 1" {
		t.Errorf("%s: %s", got, first)
	}
}
