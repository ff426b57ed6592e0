package reliability

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Load counts containers, calls and spans under a fault, compared with what was
// expected.
type Load struct {
	Pods, PodsLost     int
	Calls, CallsFailed int            // failed because of the fault
	Recorded           int            // spans in the journal
	Delivered          int            // distinct spans that the collector has
	Duplicated         int            // further copies that it has
	Lost               map[string]int // counted in the journal, by reason
	LongestPause       time.Duration  // of a call that does not wait
}

// loadColumns is the header of an area whose faults have a Load.
const loadColumns = "| what was done | pods lost | calls failed | spans recorded | delivered | duplicated | lost, by reason | longest pause | test |\n" +
	"|---|---|---|---|---|---|---|---|---|\n"

// cells returns l's cells, between the fault and its test.
func (l *Load) cells() string {
	return fmt.Sprintf("%d of %d | %d of %d | %d | %d | %d | %s | %s",
		l.PodsLost, l.Pods, l.CallsFailed, l.Calls, l.Recorded, l.Delivered, l.Duplicated, l.lost(), pause(l.LongestPause))
}

func (l *Load) lost() string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(l.Lost)) {
		if n := l.Lost[reason]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", cell(reason), n))
		}
	}
	if parts == nil {
		return "0"
	}
	return strings.Join(parts, ", ")
}

// pause formats a duration, rounded for readers.
func pause(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

var digits = regexp.MustCompile(`\d+(\.\d+)?`)

// contradicts says how l, of another run, contradicts the cells of a row, or returns
// "". Where the document has 0 pods lost, calls failed or spans duplicated, l must too,
// and spans may be lost only for the reasons named. Other numbers may differ.
func (l *Load) contradicts(row string) string {
	cells := strings.Split(row, " | ")
	if len(cells) != strings.Count(firstLine(loadColumns), " | ")+1 {
		return "the row has no such columns"
	}
	for _, c := range []struct {
		cell, what string
		n          int
	}{{cells[1], "pods lost", l.PodsLost}, {cells[2], "calls failed", l.CallsFailed}} {
		if digits.FindString(c.cell) == "0" && c.n != 0 {
			return fmt.Sprintf("%d %s, and the document says 0", c.n, c.what)
		}
	}
	for reason, n := range l.Lost {
		_, why, ofAgents := strings.Cut(reason, ": ")
		if !ofAgents {
			why = reason
		}
		if n > 0 && !strings.Contains(cells[6], cell(why)+": ") {
			return fmt.Sprintf("%d spans lost as %q, and the document does not say so", n, reason)
		}
	}
	return ""
}
