package explain

import (
	"fmt"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Head returns the lines for the head of a picture: the critical path and the self time
// of each layer; none if the story does not tell of a start.
func (e *Explanation) Head() []string {
	if e.Start == nil {
		return nil
	}
	return []string{"critical path " + e.pathLine(), "self time " + e.layerLine()}
}

// legShare is the least share of the start that a leg of the path has its own words for.
const legShare = 0.03

// maxLegs bounds the legs in one line.
const maxLegs = 7

// leg is a part of the path that belongs to one span and one layer.
type leg struct {
	what   string
	layer  critical.Layer
	length time.Duration
}

// legs returns the longer parts of the path in order; what lies between is left out.
func (e *Explanation) legs() (out []leg, rest time.Duration) {
	var all []leg
	for _, g := range e.Start.Path {
		what := "no call"
		if g.Node != nil {
			what = waterfall.Clean(g.Node.Title())
		}
		if n := len(all); n > 0 && all[n-1].what == what && all[n-1].layer == g.Layer {
			all[n-1].length += g.Length()
			continue
		}
		all = append(all, leg{what, g.Layer, g.Length()})
	}
	least := time.Duration(legShare * float64(e.Start.Length()))
	for _, l := range all {
		if l.length >= least && len(out) < maxLegs {
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
