package telemetry

import (
	"slices"
	"sync/atomic"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/middleware"
)

// latePod is a client that puts the pod's name into the resource of a sandbox's spans
// where the relay learns it after it has made that resource: with sandboxer = "shim"
// there is no spec in the bundle when the shim starts, and the pod comes with
// CreateSandbox. No span has ended by then, as a rule.
type latePod struct {
	export.Client
	sandbox string
	attrs   atomic.Pointer[[]*commonpb.KeyValue]
}

// SetPod makes the pod known.
func (t *Telemetry) SetPod(pod state.Annotations) {
	var attrs []*commonpb.KeyValue
	for _, a := range pod.Pod() {
		attrs = append(attrs, &commonpb.KeyValue{
			Key:   string(a.Key),
			Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: a.Value.AsString()}},
		})
	}
	t.pod.attrs.Store(&attrs)
}

// AppendSpans implements [export.Spans].
func (l *latePod) AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error {
	return l.Client.AppendSpans(l.named(resource), scope, spans, n)
}

// named returns a resource with the pod, if it is of the sandbox.
func (l *latePod) named(res *resourcepb.Resource) *resourcepb.Resource {
	attrs := l.attrs.Load()
	if attrs == nil || !l.ours(res) {
		return res
	}
	// It may be shared with batches that are on their way.
	return &resourcepb.Resource{
		Attributes:             append(slices.Clip(res.Attributes), *attrs...),
		DroppedAttributesCount: res.DroppedAttributesCount,
		EntityRefs:             res.EntityRefs,
	}
}

// ours reports whether a resource is of the sandbox.
func (l *latePod) ours(res *resourcepb.Resource) bool {
	return slices.ContainsFunc(res.GetAttributes(), func(kv *commonpb.KeyValue) bool {
		return kv.Key == string(middleware.SandboxIDKey) && kv.Value.GetStringValue() == l.sandbox
	})
}
