package forwarder

import (
	"go.opentelemetry.io/otel/sdk/resource"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

// Resource returns a resource in OTLP's form, all values as strings.
func Resource(res *resource.Resource) *resourcepb.Resource {
	pb := new(resourcepb.Resource)
	for _, kv := range res.Attributes() {
		pb.Attributes = append(pb.Attributes, &commonpb.KeyValue{
			Key:   string(kv.Key),
			Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: kv.Value.String()}},
		})
	}
	return pb
}
