// Package stats says how long the starts of many sandboxes took: for each runtime, the
// percentiles of whole starts and of each layer's part of them, and how both went over
// time.
package stats

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// Start is the start of one sandbox.
type Start struct {
	At      time.Time
	Runtime string
	// Failed: it has not started, or with an error; its times do not count.
	Failed bool
	// Phases are the parts that took time, the whole as the first; a name occurs once.
	Phases []Phase
}

// Phase is a part of a start.
type Phase struct {
	Name string
	Took time.Duration
}

// Runtime is what is known of the starts of one runtime.
type Runtime struct {
	Name           string
	Starts, Failed int
	First, Last    time.Time
	// Phases are in the order of Start.Phases, then by their median.
	Phases []Summary
}

// Summary is what is known of one phase. Percentiles are those of the starts that have
// the phase, by nearest rank.
type Summary struct {
	Name               string
	Count              int
	P50, P95, P99, Max time.Duration
	// Medians are the phase's medians in equal parts of the time from the first start to
	// the last; 0 in a part without any.
	Medians []time.Duration
}

// parts is the number of parts of the time.
const parts = 16

// Summarize returns the runtimes, those with the most starts first.
func Summarize(starts []Start) []Runtime {
	by := make(map[string][]Start)
	for _, s := range starts {
		by[s.Runtime] = append(by[s.Runtime], s)
	}
	var all []Runtime
	for name, starts := range by {
		all = append(all, summarize(name, starts))
	}
	slices.SortFunc(all, func(a, b Runtime) int {
		return cmp.Or(cmp.Compare(b.Starts+b.Failed, a.Starts+a.Failed), strings.Compare(a.Name, b.Name))
	})
	return all
}

func summarize(name string, starts []Start) Runtime {
	r := Runtime{Name: name}
	phases := make(map[string]*samples)
	whole := ""
	for _, s := range starts {
		if r.First.IsZero() || s.At.Before(r.First) {
			r.First = s.At
		}
		if s.At.After(r.Last) {
			r.Last = s.At
		}
	}
	for _, s := range starts {
		if s.Failed {
			r.Failed++
			continue
		}
		r.Starts++
		for i, p := range s.Phases {
			if i == 0 {
				whole = p.Name
			}
			if phases[p.Name] == nil {
				phases[p.Name] = &samples{}
			}
			phases[p.Name].add(p.Took, part(s.At, r.First, r.Last))
		}
	}
	for name, s := range phases {
		r.Phases = append(r.Phases, s.summary(name))
	}
	slices.SortFunc(r.Phases, func(a, b Summary) int {
		return cmp.Or(-compareBool(a.Name == whole, b.Name == whole), cmp.Compare(b.P50, a.P50), strings.Compare(a.Name, b.Name))
	})
	return r
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// part returns in which part of the time from first to last a moment is.
func part(at, first, last time.Time) int {
	whole := last.Sub(first)
	if whole <= 0 {
		return 0
	}
	return min(parts-1, int(float64(at.Sub(first))/float64(whole)*parts))
}

// samples are the durations of one phase.
type samples struct {
	all    []time.Duration
	byPart [parts][]time.Duration
}

func (s *samples) add(d time.Duration, part int) {
	s.all = append(s.all, d)
	s.byPart[part] = append(s.byPart[part], d)
}

func (s *samples) summary(name string) Summary {
	slices.Sort(s.all)
	out := Summary{
		Name: name, Count: len(s.all), Medians: make([]time.Duration, parts),
		P50: percentile(s.all, 50), P95: percentile(s.all, 95), P99: percentile(s.all, 99), Max: s.all[len(s.all)-1],
	}
	for i, some := range s.byPart {
		if len(some) > 0 {
			slices.Sort(some)
			out.Medians[i] = percentile(some, 50)
		}
	}
	return out
}

// percentile returns the smallest of sorted durations that p percent do not exceed.
func percentile(sorted []time.Duration, p float64) time.Duration {
	return sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]
}
