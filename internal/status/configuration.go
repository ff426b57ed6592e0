package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/relays"
)

// configurationLines returns lines that say for which relays the configuration is not in effect
// as the files have it, and why. Relays with the same reason share a line.
func configurationLines(all []relays.Report) (lines []string) {
	problems, unseen, news := newCauses(), newCauses(), newCauses()
	for _, r := range all {
		c := r.Configuration
		if c == nil {
			continue
		}
		if c.Problem != nil {
			problems.add(c.Problem.Error, c.Problem.Since)
		}
		if c.Unseen != "" {
			unseen.add(c.Unseen, time.Time{})
		}
		if len(c.NewPods) > 0 {
			news.add(strings.Join(c.NewPods, ", "), time.Time{})
		}
	}
	for _, why := range problems.order {
		c := problems.all[why]
		lines = append(lines, line("config", fmt.Sprintf("not taken by %s since %s: %s", plural(c.n, "relay", "relays"), c.since.Local().Format(time.DateTime), oneLine(why))))
	}
	for _, why := range unseen.order {
		lines = append(lines, line("config", fmt.Sprintf("changes reach new pods only, not %s: %s", plural(unseen.all[why].n, "relay that runs", "relays that run"), oneLine(why))))
	}
	for _, keys := range news.order {
		lines = append(lines, line("config", fmt.Sprintf("%s goes by what it began with, new pods do not: %s", plural(news.all[keys].n, "relay", "relays"), keys)))
	}
	return lines
}

// causes are reasons, each with the number of relays that have it.
type causes struct {
	order []string
	all   map[string]*cause
}

type cause struct {
	n     int
	since time.Time // the first time
}

func newCauses() causes { return causes{all: make(map[string]*cause)} }

func (c *causes) add(why string, since time.Time) {
	if c.all[why] == nil {
		c.order = append(c.order, why)
		slices.Sort(c.order)
		c.all[why] = &cause{since: since}
	}
	of := c.all[why]
	of.n++
	if since.Before(of.since) {
		of.since = since
	}
}

func oneLine(text string) string { return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ") }
