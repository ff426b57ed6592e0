package shim

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/receiver"
	"github.com/shimtrace/shimtrace/internal/shim/agentconfig"
)

// runtimeService is the service.name of what Kata's runtime sends.
const runtimeService = "kata-runtime"

// collation says how the spans of a VM get their place: of our sandbox under its
// calls, of another by themselves.
func (r *relayProcess) collation(from listen.Origin) (o collate.Options, refused string) {
	o = agentconfig.Isolated(r.cfg)
	attrs := r.who.Attributes()
	if from.Sandbox == "" {
		attrs = []attribute.KeyValue{receiver.CIDKey.Int64(int64(from.CID))}
	} else {
		o.Root, o.Mode = r.state.Trace.SpanContext(), r.mode()
		o.Sandbox, o.Began, o.OnDemand = from.Sandbox, r.state.Started, r.state.Dynamic
		o.Drop = r.sandbox.dropped
	}
	o.Resource = r.resource(agentService, attrs)
	o.Runtime = r.resource(runtimeService, attrs)
	return o, ""
}

// mode says where the spans of the agent in the sandbox's VM go.
func (r *relayProcess) mode() collate.Mode {
	if r.cfg.Trace.Type == "collated" || r.cfg.Trace.Type == "auto" && (r.state.Trace.Sampled || r.state.Dynamic) {
		return collate.Collated
	}
	return collate.Isolated
}

// resource returns what spans of a service say of themselves that are not our own.
func (r *relayProcess) resource(service string, attrs []attribute.KeyValue) *resourcepb.Resource {
	res, err := export.NewResource(context.Background(), service, r.cfg.Resource, attrs...)
	if err != nil {
		r.log.Warn("spans say less than they should", "service", service, "error", err)
	}
	return receiver.Resource(res)
}
