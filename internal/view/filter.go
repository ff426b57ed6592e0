package view

import (
	"path"
	"slices"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Filter selects stories. The zero value selects all. Names may have wildcards, as in a
// shell.
type Filter struct {
	// Pod is a pod's name, or namespace/name.
	Pod string
	// Container is a container's name, or the beginning of its id.
	Container string
	// Since leaves out what began earlier.
	Since time.Time
	// Min leaves out what lasted shorter: starts in list and stats, spans in show.
	Min time.Duration
	// Errors leaves out what did not fail.
	Errors bool
}

// Check returns an error for a filter that cannot be applied.
func (f Filter) Check() error {
	for flag, pattern := range map[string]string{"pod": f.Pod, "container": f.Container} {
		if _, err := path.Match(pattern, ""); err != nil {
			return console.UsageError("--%s %q: not a name with wildcards: an opening bracket has no end, or a backslash nothing behind it", flag, pattern)
		}
	}
	if f.Min < 0 {
		return console.UsageError("--min %s: a duration is not negative", f.Min)
	}
	return nil
}

// ParseSince reads the beginning of a time: how long ago ("90m", "2h30m", "7d"), or when
// ("15:04", "2006-01-02", "2006-01-02 15:04:05" in local time, or RFC 3339).
func ParseSince(text string, now time.Time) (time.Time, error) {
	ago := text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		ago = days + "h"
	}
	if d, err := time.ParseDuration(ago); err == nil && d >= 0 {
		if ago != text {
			d *= 24
		}
		return now.Add(-d), nil
	}
	if at, err := time.ParseInLocation("15:04", text, now.Location()); err == nil {
		today := time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, now.Location())
		if today.After(now) {
			today = today.AddDate(0, 0, -1)
		}
		return today, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, console.UsageError("--since %q: neither how long ago (90m, 2h, 7d) nor a time (15:04, 2006-01-02, \"2006-01-02 15:04:05\", or in RFC 3339)", text)
}

// stories returns the stories that pass, in their order.
func (f Filter) stories(all []*waterfall.Story) []*waterfall.Story {
	return slices.DeleteFunc(slices.Clone(all), func(s *waterfall.Story) bool {
		return !f.isOf(s) || f.Errors && s.Errors == 0 || started(s) < f.Min
	})
}

// isOf reports whether the story is of what the filter names.
func (f Filter) isOf(s *waterfall.Story) bool {
	return (f.Pod == "" || s.Pod != "" && (wild(f.Pod, s.Pod) || wild(f.Pod, s.PodNamespace+"/"+s.Pod))) &&
		(f.Container == "" || slices.ContainsFunc(s.Containers, f.isContainer)) &&
		!s.Start.Before(f.Since)
}

func (f Filter) isContainer(c waterfall.Container) bool {
	return wild(f.Container, c.Name) || strings.HasPrefix(c.ID, f.Container)
}

// started returns how long the story took to start, or took in all if it did not.
func started(s *waterfall.Story) time.Duration {
	if s.Startup > 0 {
		return s.Startup
	}
	return s.Duration()
}

// spans returns which nodes of the story's picture pass, nil for all.
func (f Filter) spans(s *waterfall.Story) func(*waterfall.Node) bool {
	if f.Container == "" && f.Min == 0 && !f.Errors {
		return nil
	}
	about := make(map[string]bool) // ids of containers
	for _, c := range s.Containers {
		if f.Container == "" || f.isContainer(c) {
			about[c.ID] = true
		}
	}
	return func(n *waterfall.Node) bool {
		return n.Span != nil && (f.Container == "" || about[n.Container()]) &&
			n.Interval().Length() >= f.Min && (!f.Errors || n.Span.Failed)
	}
}

func wild(pattern, name string) bool {
	ok, _ := path.Match(pattern, name) // Check has refused bad patterns
	return ok
}
