package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Head returns the lines for the head of a picture: the critical path and the self time
// of each layer. If the start failed or goes on, a line before them says so. There are none
// if the story does not tell of a start.
func (e *Explanation) Head() (lines []string) {
	if e.Start == nil {
		return nil
	}
	if !e.Succeeded() {
		lines = append(lines, e.headline())
	}
	return append(lines, e.summary()...)
}

// summary sums up the start in two lines.
func (e *Explanation) summary() []string {
	return []string{"critical path " + e.pathLine(), "self time " + e.layerLine()}
}

// legShare is the least share of the start at which a leg of the path is named.
const legShare = 0.03

// maxLegs bounds the legs in one line, maxLeg the name of one, in cells.
const (
	maxLegs = 7
	maxLeg  = 40
)

// leg is a part of the path that belongs to one span and one layer.
type leg struct {
	what   string
	layer  critical.Layer
	length time.Duration
}

// legs returns the longest parts of the path in order; what lies between is left out.
func (e *Explanation) legs() (out []leg, rest time.Duration) {
	var all []leg
	for _, g := range e.Start.Path {
		what := "no call"
		if g.Node != nil {
			what = waterfall.Fit(waterfall.Clean(g.Node.Title()), maxLeg)
		}
		if n := len(all); n > 0 && all[n-1].what == what && all[n-1].layer == g.Layer {
			all[n-1].length += g.Length()
			continue
		}
		all = append(all, leg{what, g.Layer, g.Length()})
	}
	least := time.Duration(legShare * float64(e.Start.Length()))
	longest := make([]int, len(all))
	for i := range all {
		longest[i] = i
	}
	slices.SortStableFunc(longest, func(a, b int) int { return cmp.Compare(all[b].length, all[a].length) })
	longest = longest[:min(maxLegs, len(longest))]
	for i, l := range all {
		if l.length >= least && slices.Contains(longest, i) {
			out = append(out, l)
		} else {
			rest += l.length
		}
	}
	return out, rest
}

func (e *Explanation) pathLine() string {
	legs, rest := e.legs()
	var parts []string
	for _, l := range legs {
		parts = append(parts, fmt.Sprintf("%s %s (%s)", l.what, waterfall.Duration(l.length), l.layer))
	}
	line := strings.Join(parts, " › ")
	if rest > 0 {
		line += fmt.Sprintf("; %s in shorter pieces", waterfall.Duration(rest))
	}
	return line
}

func (e *Explanation) layerLine() string {
	var parts []string
	for _, l := range e.Start.ByLayer() {
		parts = append(parts, fmt.Sprintf("%s %s", l.Layer, waterfall.Duration(l.Self)))
	}
	return strings.Join(parts, " · ")
}
