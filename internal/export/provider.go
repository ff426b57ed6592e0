package export

import (
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/names"
)

// Limits of one span. Requests contain texts of any length from containers and their
// images, but a person is to read the span.
const (
	maxValueLen   = 4 << 10
	maxAttributes = 128
	maxEvents     = 128
	maxLinks      = 32
)

// NewTracerProvider returns a provider whose spans have the resource and go to the
// processor. Several providers may share a processor, provided that only the last of
// them is shut down: that shuts the processor down too.
//
// Under a parent-based sampler, the default, the children of an unsampled context are
// not recorded.
func NewTracerProvider(cfg config.Trace, res *resource.Resource, p sdktrace.SpanProcessor) *sdktrace.TracerProvider {
	return sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(p),
		sdktrace.WithResource(res),
		sdktrace.WithSampler(newSampler(cfg)),
		sdktrace.WithIDGenerator(idGenerator{}),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
			AttributeValueLengthLimit:   maxValueLen,
			AttributeCountLimit:         maxAttributes,
			EventCountLimit:             maxEvents,
			LinkCountLimit:              maxLinks,
			AttributePerEventCountLimit: maxAttributes,
			AttributePerLinkCountLimit:  maxAttributes,
		}),
	)
}

// NewResource returns the resource of a service's spans: the host's name, overridden by
// the configured attributes, overridden by attrs. The environment does not set the
// service's name: a shim inherits containerd's environment. On error the resource lacks
// what the error names.
func NewResource(ctx context.Context, service string, configured map[string]string, attrs ...attribute.KeyValue) (*resource.Resource, error) {
	base := make([]attribute.KeyValue, 0, len(configured)+1)
	if host, err := os.Hostname(); err == nil {
		base = append(base, attribute.String(names.Host, host))
	}
	for k, v := range configured {
		base = append(base, attribute.String(k, v))
	}
	attrs = append([]attribute.KeyValue{attribute.String(names.Service, service)}, attrs...)
	res, err := resource.New(ctx,
		resource.WithAttributes(base...),
		resource.WithAttributes(attrs...))
	if err != nil {
		return res, fmt.Errorf("resource: %w", err)
	}
	return res, nil
}
