package view

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// List prints the last stories of the journal that the filter selects, the newest last;
// limit 0 means all. To fit into width cells (0: any number), it leaves out columns whose
// content show prints as well.
func (r *Reader) List(f Filter, limit, width int, asJSON bool) error {
	stories, err := r.stories()
	if err != nil {
		return err
	}
	defer r.report()
	if stories, err = r.selected(stories, f); err != nil {
		return err
	}
	older := 0
	if limit > 0 && len(stories) > limit {
		older = len(stories) - limit
		stories = stories[older:]
	}
	if asJSON {
		return r.listJSON(stories)
	}
	t := storyTable(stories)
	if width > 0 {
		t.Shrink(width, "TRACE", "SPANS", "RUNTIME", "DURATION")
	}
	if err := t.Write(r.Out); err != nil {
		return err
	}
	if older > 0 {
		r.Warn("%d older are not listed; --limit 0 lists all", older)
	}
	return nil
}

// storyTable formats stories for people.
func storyTable(stories []*waterfall.Story) *console.Table {
	t := &console.Table{RightFrom: 5}
	t.Add("TIME", "TRACE", "SANDBOX", "POD/CONTAINER", "RUNTIME", "STARTUP", "DURATION", "SPANS", "ERRORS")
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
		t.Add(started, s.Trace.String()[:12], waterfall.ShortID(s.Sandbox), s.Name(), s.Runtime, startup,
			waterfall.Duration(s.Duration()), fmt.Sprint(s.Spans), errors)
	}
	return t
}

// storyJSON is a story for scripts; durations are in nanoseconds.
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

func (r *Reader) listJSON(stories []*waterfall.Story) error {
	enc := json.NewEncoder(r.Out)
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
