package vmshim

import (
	"context"
	"fmt"
	"log"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/jaeger"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// tracing is the runtime's own, as Kata's Go runtime does it (katatrace/tracing.go):
// one trace from the first Create to the Shutdown with a root that lasts as long, each
// call of the shim its child. Kata's client puts the context into every request, which
// has a span as well; it takes provider and propagator from the globals. Without
// tracing there is no context.
type tracing struct {
	ctx      context.Context // has the root span
	endRoot  func()
	provider *sdktrace.TracerProvider // nil without tracing
}

func startTracing(life context.Context, settings Settings) (*tracing, error) {
	t := &tracing{}
	if settings.Tracing {
		options := []sdktrace.TracerProviderOption{
			sdktrace.WithSampler(sdktrace.AlwaysSample()),
			sdktrace.WithResource(resource.NewSchemaless(
				attribute.String("service.name", "kata"), attribute.String("exporter", "jaeger"), attribute.String("lib", "opentelemetry"))),
		}
		if settings.Jaeger != "" {
			exporter, err := jaeger.New(jaeger.WithCollectorEndpoint(jaeger.WithEndpoint(settings.Jaeger)))
			if err != nil {
				return nil, fmt.Errorf("trace to %s: %w", settings.Jaeger, err)
			}
			// One request for each span, for which the code that it measures waits.
			options = append(options, sdktrace.WithSyncer(exporter))
		}
		t.provider = sdktrace.NewTracerProvider(options...)
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Printf("vmshim: trace: %v", err) }))
		otel.SetTracerProvider(t.provider)
		otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	}
	t.ctx, t.endRoot = begin(life, "rootSpan", ofShim)
	return t, nil
}

// end exports the root span, and no further one.
func (t *tracing) end() {
	t.endRoot()
	if t.provider != nil {
		if err := t.provider.Shutdown(context.Background()); err != nil {
			log.Printf("vmshim: end the trace: %v", err)
		}
	}
}

// A part of the runtime, which its spans are tagged with: package and subsystem.
type part [2]string

var (
	ofShim    = part{"containerdshim"}
	ofSandbox = part{"virtcontainers", "sandbox"}
	ofAgent   = part{"virtcontainers", "agent"}
	ofNetwork = part{"virtcontainers", "network"}
)

// begin begins a span as Kata does.
func begin(ctx context.Context, name string, of part, tags ...attribute.KeyValue) (_ context.Context, end func()) {
	tags = append(tags, attribute.String("source", "runtime"), attribute.String("package", of[0]))
	if of[1] != "" {
		tags = append(tags, attribute.String("subsystem", of[1]))
	}
	ctx, span := otel.Tracer("kata").Start(ctx, name, trace.WithAttributes(tags...))
	return ctx, func() { span.End() }
}

// The runtime looks for new interfaces in a sandbox's network for some time.
const (
	scanEvery = 50 * time.Millisecond
	scanFor   = 5 * time.Second
)

// scanNetwork is what the search leaves in a trace, below the call of ctx.
func scanNetwork(ctx context.Context, stop <-chan struct{}) {
	tick := time.NewTicker(scanEvery)
	defer tick.Stop()
	for over := time.After(scanFor); ; {
		_, end := begin(ctx, "AddEndpoints", ofNetwork, attribute.Bool("hotplug", true), attribute.String("endpoints", "[]"))
		end()
		select {
		case <-tick.C:
		case <-over:
			return
		case <-stop:
			return
		}
	}
}
