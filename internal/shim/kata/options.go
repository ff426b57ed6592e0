package kata

import (
	"go.opentelemetry.io/otel/attribute"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
)

// collation says how the spans of a VM get their place: those of our sandbox's VM below its
// calls, those of another VM in traces of their own.
func (o *Observer) collation(from listen.Origin) (c collate.Options) {
	c = agentconfig.Isolated(o.current())
	attrs := o.Who.Attributes()
	if from.Sandbox == "" {
		attrs = []attribute.KeyValue{attribute.Int64(names.CID, int64(from.CID))}
	} else {
		c.Root, c.Isolated = o.state.Trace.SpanContext(), o.isolated()
		c.Sandbox, c.Began, c.OnDemand = from.Sandbox, o.state.Started, o.state.Dynamic
		c.Drop = o.dropped
		c.Drawn = o.boot.drawn
	}
	c.Resource = o.resource(names.AgentScope, attrs)
	c.Runtime = o.resource(names.RuntimeScope, attrs)
	return c
}

// isolated reports whether the spans of the agent in the sandbox's VM stay in traces of
// their own.
func (o *Observer) isolated() bool {
	collated := o.Config.Trace.Type == "auto" && (o.state.Trace.Sampled || o.state.Dynamic)
	return !collated && o.Config.Trace.Type != "collated"
}

// resource returns the resource of a service's spans that are not our own.
func (o *Observer) resource(service string, attrs []attribute.KeyValue) *resourcepb.Resource {
	return export.NewResource(service, o.Config.Resource, attrs...)
}

// dropped counts the agent's and the runtime's spans that are of a time when tracing was
// off.
func (o *Observer) dropped(reason collate.Reason, n int) {
	if reason == collate.Off {
		o.sandbox.Unrecorded(n)
	}
}
