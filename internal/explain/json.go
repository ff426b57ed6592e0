package explain

import (
	"encoding/json"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
)

// The explanation for scripts. Durations are in nanoseconds.
type (
	startJSON struct {
		TraceID   string        `json:"trace_id"`
		Sandbox   string        `json:"sandbox,omitempty"`
		Pod       string        `json:"pod,omitempty"`
		Namespace string        `json:"pod_namespace,omitempty"`
		Runtime   string        `json:"runtime,omitempty"`
		Container string        `json:"container,omitempty"`
		From      time.Time     `json:"from,omitzero"`
		To        time.Time     `json:"to,omitzero"`
		Start     time.Duration `json:"start_ns"`
		Over      bool          `json:"over"`              // a container has started
		Exact     bool          `json:"first_instruction"` // To is its first instruction
		Layers    []layerJSON   `json:"layers"`
		Path      []segmentJSON `json:"critical_path"`
		Coverage  coverageJSON  `json:"coverage"`
		Causes    []causeJSON   `json:"causes"`
	}
	layerJSON struct {
		Layer    string        `json:"layer"`
		Self     time.Duration `json:"self_ns"`
		Inferred time.Duration `json:"inferred_ns,omitempty"`
	}
	segmentJSON struct {
		At       time.Duration `json:"at_ns"` // since From
		Length   time.Duration `json:"length_ns"`
		Layer    string        `json:"layer"`
		SpanID   string        `json:"span_id,omitempty"`
		Name     string        `json:"name,omitempty"`
		What     string        `json:"what,omitempty"`
		Inferred bool          `json:"inferred,omitempty"`
	}
	coverageJSON struct {
		BySpan    time.Duration `json:"by_span_ns"`
		Inferred  time.Duration `json:"inferred_ns"`
		Unnamed   time.Duration `json:"unnamed_ns"`
		Share     float64       `json:"unnamed_share"`
		Stretches []stretchJSON `json:"without_span"`
	}
	stretchJSON struct {
		segmentJSON
		Where string `json:"where"`
		Named bool   `json:"named"`
		Cause string `json:"cause,omitempty"`
	}
	causeJSON struct {
		ID       string        `json:"id"`
		Sentence string        `json:"sentence"`
		Evidence []string      `json:"evidence"`
		Why      string        `json:"why"`
		Source   string        `json:"source"`
		Remedy   string        `json:"remedy"`
		Cost     time.Duration `json:"cost_ns,omitempty"`
		Inferred bool          `json:"inferred,omitempty"`
		Covers   []string      `json:"covers,omitempty"` // ids of causes that it accounts for
	}
)

// MarshalJSON returns the explanation as one object.
func (e *Explanation) MarshalJSON() ([]byte, error) {
	o := startJSON{
		TraceID: e.Story.Trace.String(), Sandbox: e.Story.Sandbox, Pod: e.Story.Pod, Namespace: e.Story.PodNamespace, Runtime: e.Story.Runtime,
		Layers: []layerJSON{}, Path: []segmentJSON{}, Causes: []causeJSON{},
	}
	o.Coverage.Stretches = []stretchJSON{}
	if e.Start != nil {
		e.fill(&o)
	}
	return json.Marshal(o)
}

func (e *Explanation) fill(o *startJSON) {
	s := e.Start
	o.From, o.To, o.Start = time.Unix(0, int64(s.From)).UTC(), time.Unix(0, int64(s.To)).UTC(), s.Length()
	o.Over, o.Exact = s.Target != nil, s.Exact
	if s.Target != nil {
		o.Container = s.Target.Span.Container()
	}
	for _, l := range s.ByLayer() {
		o.Layers = append(o.Layers, layerJSON{string(l.Layer), l.Self, l.Inferred})
	}
	segment := func(g *critical.Segment) segmentJSON {
		j := segmentJSON{At: time.Duration(g.From - s.From), Length: g.Length(), Layer: string(g.Layer), What: g.What, Inferred: g.Inferred}
		if g.Node != nil {
			j.SpanID, j.Name = g.Node.ID.String(), g.Node.Name()
		}
		return j
	}
	for _, g := range s.Path {
		o.Path = append(o.Path, segment(&g))
	}
	c := &e.Coverage
	o.Coverage.BySpan, o.Coverage.Inferred, o.Coverage.Unnamed, o.Coverage.Share = c.BySpan, c.Inferred, c.Unnamed, c.Share()
	for _, d := range c.Stretches {
		o.Coverage.Stretches = append(o.Coverage.Stretches, stretchJSON{segment(&d.Segment), d.Where(), d.Named, d.Cause})
	}
	for _, c := range e.Causes {
		o.Causes = append(o.Causes, causeJSON{c.ID, c.Sentence, c.Evidence, c.Why, c.Source, c.Remedy, c.Cost, c.Inferred, c.Covers})
	}
}
