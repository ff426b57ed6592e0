package relays

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Report is what is known of a relay, for scripts.
type Report struct {
	Sandbox      string              `json:"sandbox"`
	Pod          string              `json:"pod,omitempty"`
	PodNamespace string              `json:"pod_namespace,omitempty"`
	Containers   []control.Container `json:"containers,omitempty"`
	Runtime      string              `json:"runtime"`
	Namespace    string              `json:"containerd_namespace"`
	// Mode is the trace.mode that is in effect; of a relay that is too old to say, the one that
	// its sandbox was started in.
	Mode string `json:"mode"`
	// Guarded reports whether another relay takes over if this one dies; nil: nobody asked.
	Guarded *bool `json:"guarded,omitempty"`
	// On reports whether it is traced now, Changed whether this command changed that.
	On      bool `json:"on"`
	Changed bool `json:"changed"`
	// TraceID is the trace of the last time that it was on.
	TraceID string `json:"trace_id,omitempty"`
	// Unsampled: the sampler did not choose that trace.
	Unsampled  bool      `json:"unsampled,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	Until      time.Time `json:"until,omitzero"`
	Ended      time.Time `json:"ended,omitzero"`
	Unrecorded uint64    `json:"unrecorded_spans,omitempty"`
	Error      string    `json:"error,omitempty"`
	// Configuration is nil if the relay does not answer, or is too old to follow any.
	Configuration *control.Configuration `json:"configuration,omitempty"`
	// Facts are nil if the relay does not answer, or is too old to know them.
	Facts *control.Facts `json:"facts,omitempty"`

	// Socket is where containerd connects to the relay; the guard knows it by that.
	Socket string `json:"-"`
	// Name is the sandbox's for people, empty if it has none but its id.
	Name string `json:"-"`
}

// report prints the answers, and warns of what one would not expect.
func (o Operator) report(relays []*status, do string, asJSON bool) error {
	unsampled := 0
	t := &console.Table{RightFrom: 6}
	t.Add("SANDBOX", "POD/CONTAINER", "RUNTIME", "TRACING", "UNTIL", "TRACE")
	enc := json.NewEncoder(o.Out)
	for _, r := range relays {
		if r.answer.On && r.answer.Window != nil && !r.answer.Window.Sampled {
			unsampled++
		}
		if asJSON {
			if err := enc.Encode(r.report()); err != nil {
				return err
			}
			continue
		}
		is := r.report()
		t.Add(waterfall.ShortID(is.Sandbox), is.Name, is.Runtime, r.tracing(do), is.UntilText(), is.TraceID[:min(12, len(is.TraceID))])
	}
	if !asJSON && len(relays) > 0 {
		if err := t.Write(o.Out); err != nil {
			return err
		}
	}
	if unsampled > 0 {
		o.Warn("%d of these traces have not been chosen by trace.sampler: nothing is recorded but calls of those that trace themselves", unsampled)
	}
	return nil
}

// UntilText says until when tracing is on, for people; empty if it does not end by itself.
func (r Report) UntilText() string {
	if !r.On || r.Until.IsZero() {
		return ""
	}
	return clock(r.Until)
}

// shown returns the sandbox's name for people.
func (r *status) shown() string {
	if r.relay.Pod == "" && len(r.answer.Containers) == 1 {
		return r.answer.Containers[0].Name
	}
	if r.relay.Pod == "" {
		return ""
	}
	return r.relay.Name()
}

// tracing says whether tracing is on, and whether the command changed that.
func (r *status) tracing(do string) string {
	switch {
	case !r.relay.Dynamic:
		return "static"
	case r.err != nil:
		return "failed"
	case do == control.DoOn && r.answer.Changed:
		return "switched on"
	case do == control.DoOn:
		return "was on"
	case r.answer.Changed:
		return "switched off"
	}
	return "was off"
}

func (r *status) report() Report {
	o := Report{
		Sandbox: r.relay.Sandbox, Pod: r.relay.Pod, PodNamespace: r.relay.PodNamespace, Containers: r.answer.Containers,
		Runtime: runtimeOf(r.relay.Inner), Namespace: r.relay.Namespace, Mode: "static", On: true,
		Facts: r.answer.Facts, Socket: r.relay.RelaySock, Name: r.shown(),
	}
	if r.relay.Dynamic {
		o.Mode, o.On, o.Changed, o.Unrecorded = "dynamic", r.answer.On, r.answer.Changed, r.answer.Unrecorded
	}
	if o.Configuration = r.answer.Configuration; o.Configuration != nil {
		o.Mode = o.Configuration.Mode
	}
	if w := r.answer.Window; w != nil {
		o.TraceID, o.Unsampled, o.Since, o.Until, o.Ended = w.TraceID, !w.Sampled, w.Since, w.Until, w.Ended
	}
	if r.err != nil {
		o.Error = r.err.Error()
	}
	return o
}

// runtimeOf returns the runtime's name from the path of its inner shim.
func runtimeOf(inner string) string {
	name := strings.TrimPrefix(filepath.Base(inner), "containerd-shim-")
	return strings.TrimSuffix(name, "-v2")
}
