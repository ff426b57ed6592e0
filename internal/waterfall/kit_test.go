package waterfall

import (
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
)

// The tests' stories are those of package storytest.
type (
	script = storytest.Script
	change = storytest.Change
)

const (
	ms        = time.Millisecond
	task      = storytest.Task
	sandboxID = storytest.SandboxID
)

var (
	epoch      = storytest.Epoch
	attr       = storytest.Attr
	resourceOf = storytest.Resource
	traceBytes = storytest.TraceID
	spanBytes  = storytest.SpanID
	with       = storytest.With
	linked     = storytest.Linked
	wrong      = storytest.Failed
	event      = storytest.Event
	message    = storytest.Message
	kataPod    = storytest.KataPod
)

// recorded is long after everything in the scripts.
var recorded = epoch.Add(365 * 24 * time.Hour)

func indexOf(spans []*tracepb.ResourceSpans) *Index {
	x := NewIndex()
	if err := x.Add(message(spans), recorded); err != nil {
		panic(err)
	}
	return x
}

// build builds the tree of the story's spans, or of all without a story.
func build(s *Story, spans []*tracepb.ResourceSpans, l Limits) *Tree {
	b := NewBuilder(s, l, true)
	if err := b.Add(message(spans)); err != nil {
		panic(err)
	}
	return b.Tree()
}

// only returns the one story of the spans.
func only(spans []*tracepb.ResourceSpans) (*Story, *Tree) {
	stories := indexOf(spans).Stories()
	if len(stories) != 1 {
		panic("not one story")
	}
	return stories[0], build(stories[0], spans, Limits{})
}
