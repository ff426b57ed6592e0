package status

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/relays"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// maxShares bounds the shares that are named in a text.
const maxShares = 4

// Text returns the picture in lines: what the host has once, then the relays. before is the
// picture before this one, since which rates are told; nil: no rates are told.
func (p *Picture) Text(before *Picture) []string {
	all := []string{p.guardLine(), p.collectLine()}
	for _, j := range p.Journals {
		all = append(all, p.journalLines(j, before)...)
	}
	all = append(all, configurationLines(p.Relays)...)
	for i, l := range all {
		all[i] = waterfall.Clean(l)
	}
	if len(p.Relays) == 0 {
		return append(all, "", "relays    "+waterfall.Clean(p.Nothing))
	}
	return append(append(all, ""), p.table(before)...)
}

// line returns a line that names a thing and says something about it.
func line(of string, said ...string) string {
	said = slices.DeleteFunc(said, func(s string) bool { return s == "" })
	return fmt.Sprintf("%-9s %s", of, strings.Join(said, ", "))
}

func (p *Picture) guardLine() string {
	g, alone := p.Guard, 0
	for _, r := range p.Relays {
		if r.Guarded != nil && !*r.Guarded {
			alone++
		}
	}
	switch {
	case g == nil:
		return line("guard", "-")
	case g.Error != "" && len(p.Relays) == 0:
		return line("guard", "none runs: "+g.Error)
	case g.Error != "":
		return line("guard", "there is no guard: a sandbox ends if its relay dies ("+g.Error+")")
	}
	said := []string{fmt.Sprintf("process %d", g.PID), count(g.Relays, "relay")}
	if g.Resumed > 0 {
		said = append(said, fmt.Sprintf("%d times another one went on", g.Resumed))
	}
	if alone > 0 {
		said = append(said, fmt.Sprintf("%d of %d relays are not guarded: such a sandbox ends if its relay dies; --json says which", alone, len(p.Relays)))
	}
	if g.Unrecorded != "" {
		said = append(said, "what inner shims execute is not recorded: "+g.Unrecorded)
	}
	return line("guard", said...)
}

func (p *Picture) collectLine() string {
	if p.Collect == nil {
		return line("collect", "-")
	}
	return line("collect", map[string]string{
		"answers": "runs", "silent": "runs and does not answer", "absent": "does not run: it is started when something is to be shipped",
	}[p.Collect.State])
}

func (p *Picture) journalLines(j Journal, before *Picture) []string {
	if j.Error != "" {
		return []string{line("journal", j.Dir, j.Error)}
	}
	own, posted := strconv.Itoa(j.Spans)+" spans", ""
	if j.Posted > 0 {
		posted = strconv.Itoa(j.Posted) + " of other programs"
	}
	var damaged string
	if j.Damaged > 0 {
		damaged = fmt.Sprintf("%d bytes are damaged", j.Damaged)
	}
	all := []string{line("journal", j.Dir, size(j.Bytes)+" of "+size(j.Max), own, posted, damaged)}
	if len(j.Shares) > 0 {
		all = append(all, line("", "shares: "+strings.Join(shares(j.Shares), ", ")))
	}
	lost, intended := losses.Split(j.Lost)
	if text := byReason(lost); text != "" {
		all = append(all, line("", text+" lost"))
	}
	if text := byReason(intended); text != "" {
		all = append(all, line("", text+" removed or kept out as configured"))
	}
	for _, t := range j.Targets {
		all = append(all, t.line(was(before, j.Dir, t.Name), p.since(before)))
	}
	return all
}

// was returns the same target in the picture before; nil: there is none.
func was(before *Picture, dir, target string) *Target {
	if before == nil {
		return nil
	}
	for _, j := range before.Journals {
		if i := slices.IndexFunc(j.Targets, func(t Target) bool { return t.Name == target }); j.Dir == dir && i >= 0 {
			return &j.Targets[i]
		}
	}
	return nil
}

func (p *Picture) since(before *Picture) time.Duration {
	if before == nil {
		return 0
	}
	return p.Time.Sub(before.Time)
}

func (t Target) line(before *Target, since time.Duration) string {
	shipped := strconv.FormatUint(t.Shipped, 10) + " spans shipped"
	if t.Since.IsZero() {
		shipped = "nothing shipped yet"
	} else if before != nil {
		shipped += " (" + rate(t.Shipped, before.Shipped, since) + ")"
	}
	waiting := fmt.Sprintf("%d wait", t.Waiting)
	if t.Aside > 0 {
		waiting += fmt.Sprintf(", %d of them set aside", t.Aside)
	}
	said := []string{t.Endpoint, shipped, waiting}
	if text := byReason(t.Rejected); text != "" {
		said = append(said, text+" refused")
	}
	if t.Error != "" {
		said = append(said, "trying again: "+t.Error)
	}
	return line(strings.TrimSpace("to "+t.Name), said...)
}

func (p *Picture) table(before *Picture) []string {
	t := &console.Table{RightFrom: 6}
	head := []string{"SANDBOX", "POD/CONTAINER", "RUNTIME", "TRACING", "UNTIL", "TRACE", "SPANS", "QUEUED", "HELD", "RE-PARENTED", "CLOCK"}
	if before != nil {
		head = append(head, "SPANS/S")
	}
	t.Add(head...)
	last := make(map[string]relays.Report)
	if before != nil {
		for _, r := range before.Relays {
			last[r.Socket] = r
		}
	}
	silent := 0
	for _, r := range p.Relays {
		cells := []string{waterfall.ShortID(r.Sandbox), r.Name, r.Runtime, tracing(r), r.UntilText(), r.TraceID[:min(12, len(r.TraceID))]}
		f := r.Facts
		if f == nil {
			cells = append(cells, "", "", "", "", "")
		} else {
			clock := ""
			if f.Clock != nil {
				clock = f.Clock.Offset.Round(100 * time.Microsecond).String()
			}
			cells = append(cells, number(f.Recorded), number(f.Waiting), number(f.Held), number(f.Reparented), clock)
		}
		if before != nil {
			now, then := r.Facts, last[r.Socket].Facts
			if now != nil && then != nil && now.PID == then.PID && now.Recorded != nil && then.Recorded != nil {
				cells = append(cells, rate(*now.Recorded, *then.Recorded, p.since(before)))
			} else {
				cells = append(cells, "")
			}
		}
		t.Add(cells...)
		if r.Error != "" {
			silent++
		}
	}
	var b bytes.Buffer
	_ = t.Write(&b) // to memory
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	if silent > 0 {
		lines = append(lines, fmt.Sprintf("%s not answered", plural(silent, "relay has", "relays have")))
	}
	return lines
}

func tracing(r relays.Report) string {
	switch {
	case r.Error != "":
		return "no answer"
	case r.Mode == "static":
		return "static"
	case r.On && r.Unsampled:
		return "on, not sampled"
	case r.On:
		return "on"
	}
	return "off"
}

// number formats a number that may not be known.
func number[N int64 | uint64](n *N) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(int64(*n), 10)
}

// rate formats how fast a count has grown.
func rate(now, before uint64, in time.Duration) string {
	if now < before || in <= 0 {
		return "-"
	}
	return strconv.FormatFloat(float64(now-before)/in.Seconds(), 'f', 1, 64) + "/s"
}

func size(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func count(n int, of string) string { return plural(n, of, of+"s") }

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// shares names the largest shares, and sums up the others.
func shares(all []Share) (texts []string) {
	others, rest := 0, int64(0)
	for _, s := range all {
		if s.Of == "" || len(texts) == maxShares {
			others, rest = others+1, rest+s.Bytes
			continue
		}
		texts = append(texts, s.Of+" "+size(s.Bytes))
	}
	if others > 0 {
		texts = append(texts, fmt.Sprintf("%s %s", plural(others, "other", "others"), size(rest)))
	}
	return texts
}

// byReason formats counts with their sum, the largest first; empty if there are none.
func byReason[N int | uint64](counts map[string]N) string {
	var sum N
	reasons := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	var texts []string
	for _, r := range reasons {
		sum += counts[r]
		texts = append(texts, fmt.Sprintf("%s: %d", r, counts[r]))
	}
	if sum == 0 {
		return ""
	}
	return fmt.Sprintf("%d (%s)", sum, strings.Join(texts, ", "))
}
