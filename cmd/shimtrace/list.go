package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/waterfall"
	"github.com/urfave/cli/v3"
)

func listCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:    "list",
		Aliases: []string{"ls"},
		Usage:   "list the sandboxes that were traced on this host, the newest last",
		Description: "One line is one run of a sandbox (a pod, or a container of its own), with all the\n" +
			"traces that its spans lie in. STARTUP is the time until its first task ran.\n\n" +
			"Examples:\n   shimtrace list\n   shimtrace list --limit 0 --json | jq 'select(.errors > 0)'",
		Flags: []cli.Flag{
			journalFlag(),
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 20, Usage: "print the last `N`; 0 is all"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			limit := c.Int("limit")
			if limit < 0 {
				return console.UsageError("--limit %d: a number of lines is not negative", limit)
			}
			return h.list(h.journalDir(c), limit, c.Bool("json"))
		},
	}
}

func (h *host) list(dir string, limit int, asJSON bool) error {
	r := &reading{dir: dir}
	stories, err := r.stories()
	if err != nil {
		return err
	}
	defer r.report(h)
	if len(stories) == 0 {
		return r.empty()
	}
	older := 0
	if limit > 0 && len(stories) > limit {
		older = len(stories) - limit
		stories = stories[older:]
	}
	if asJSON {
		return h.listJSON(stories)
	}
	t := h.storyTable(stories)
	if err := t.write(h.stdout); err != nil {
		return err
	}
	if older > 0 {
		h.warn("%d older are not listed; --limit 0 lists all", older)
	}
	return nil
}

// storyTable is the stories as people read them.
func (h *host) storyTable(stories []*waterfall.Story) *table {
	t := &table{rightFrom: 5}
	t.add("TIME", "TRACE", "SANDBOX", "POD/CONTAINER", "RUNTIME", "STARTUP", "DURATION", "SPANS", "ERRORS")
	for _, s := range stories {
		started, startup, errors := "-", "-", "-"
		if !s.Start.IsZero() {
			started = s.Start.Local().Format("2006-01-02 15:04:05")
		}
		if s.Startup > 0 {
			startup = waterfall.Duration(s.Startup)
		}
		if s.Errors > 0 {
			errors = fmt.Sprint(s.Errors)
		}
		t.add(started, s.Trace.String()[:12], waterfall.ShortID(s.Sandbox), s.Name(), s.Runtime, startup,
			waterfall.Duration(s.Duration()), fmt.Sprint(s.Spans), errors)
	}
	return t
}

// storyJSON is a story as scripts read it; durations are in nanoseconds.
type storyJSON struct {
	Time         time.Time       `json:"time,omitzero"`
	TraceID      string          `json:"trace_id"`
	LinkedTraces []string        `json:"linked_trace_ids,omitempty"`
	Sandbox      string          `json:"sandbox,omitempty"`
	Pod          string          `json:"pod,omitempty"`
	PodNamespace string          `json:"pod_namespace,omitempty"`
	Containers   []containerJSON `json:"containers,omitempty"`
	Runtime      string          `json:"runtime,omitempty"`
	Namespace    string          `json:"containerd_namespace,omitempty"`
	Host         string          `json:"host,omitempty"`
	Startup      time.Duration   `json:"startup_ns,omitempty"`
	Duration     time.Duration   `json:"duration_ns"`
	Spans        int             `json:"spans"`
	Errors       int             `json:"errors"`
}

type containerJSON struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

func (h *host) listJSON(stories []*waterfall.Story) error {
	enc := json.NewEncoder(h.stdout)
	for _, s := range stories {
		o := storyJSON{
			Time: s.Start, TraceID: s.Trace.String(), Sandbox: s.Sandbox, Pod: s.Pod, PodNamespace: s.PodNamespace,
			Runtime: s.Runtime, Namespace: s.Namespace, Host: s.Host, Startup: s.Startup, Duration: s.Duration(),
			Spans: s.Spans, Errors: s.Errors,
		}
		for _, id := range s.Traces[1:] {
			o.LinkedTraces = append(o.LinkedTraces, id.String())
		}
		for _, c := range s.Containers {
			o.Containers = append(o.Containers, containerJSON(c))
		}
		if err := enc.Encode(o); err != nil {
			return err
		}
	}
	return nil
}

// table is text in columns; those from rightFrom on are aligned to the right.
type table struct {
	rows      [][]string
	rightFrom int
}

// add adds a row. Cells are cleaned; an empty one becomes "-".
func (t *table) add(cells ...string) {
	for i, c := range cells {
		if cells[i] = waterfall.Fit(waterfall.Clean(c), 40); c == "" {
			cells[i] = "-"
		}
	}
	t.rows = append(t.rows, cells)
}

func (t *table) write(w io.Writer) error {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], waterfall.Width(c))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		line := ""
		for i, c := range row {
			if i > 0 {
				line += "  "
			}
			if i >= t.rightFrom {
				line += strings.Repeat(" ", widths[i]-waterfall.Width(c)) + c
			} else {
				line += waterfall.Pad(c, widths[i])
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := w.Write([]byte(b.String()))
	return err
}
