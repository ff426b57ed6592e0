// Package runtimetrace stands for Kata's runtimes as far as they trace themselves:
// with the exporters that they use, at the versions that they pin. Tests and the
// benchmark post with them; what is posted to is somebody else's.
package runtimetrace

import (
	"fmt"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/jaeger"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// GoRuntime returns a tracer provider as Kata's Go runtime makes it
// (src/runtime/pkg/katautils/katatrace): every span is posted by the goroutine that
// ends it, which waits for the answer. The client is that of one process.
func GoRuntime(endpoint string, client *http.Client) (*sdktrace.TracerProvider, error) {
	exporter, err := jaeger.New(jaeger.WithCollectorEndpoint(
		jaeger.WithEndpoint(endpoint),
		jaeger.WithHTTPClient(client),
	))
	if err != nil {
		return nil, fmt.Errorf("trace as Kata's Go runtime: %w", err)
	}
	return sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithSyncer(exporter),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "kata"),
			attribute.String("exporter", "jaeger"),
			attribute.String("lib", "opentelemetry"),
		)),
	), nil
}
