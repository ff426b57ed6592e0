package export

import (
	"cmp"
	"os"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/names"
)

// NewResource returns the resource of a service's spans: the host's name, overridden by
// the configured attributes, overridden by attrs. The environment does not set the
// service's name: a shim inherits containerd's environment. All values are texts.
func NewResource(service string, configured map[string]string, attrs ...attribute.KeyValue) *resourcepb.Resource {
	all := make(map[string]*commonpb.AnyValue, len(configured)+len(attrs)+2)
	if host, err := os.Hostname(); err == nil {
		all[names.Host] = text(host)
	}
	for k, v := range configured {
		all[k] = text(v)
	}
	all[names.Service] = text(service)
	for _, a := range attrs {
		all[string(a.Key)] = text(a.Value.String())
	}
	res := &resourcepb.Resource{Attributes: make([]*commonpb.KeyValue, 0, len(all))}
	for k, v := range all {
		res.Attributes = append(res.Attributes, &commonpb.KeyValue{Key: k, Value: v})
	}
	slices.SortFunc(res.Attributes, func(a, b *commonpb.KeyValue) int { return cmp.Compare(a.Key, b.Key) })
	return res
}

func text(s string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
}
