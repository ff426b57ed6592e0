package middleware

import (
	"fmt"

	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/contrib/propagators/jaeger"
	"go.opentelemetry.io/otel/propagation"
)

// Propagator returns the propagator of the given forms, by the names that
// OTEL_PROPAGATORS has for them: "tracecontext", "baggage", "jaeger", "b3",
// "b3multi", "none". When a request carries a context in several forms, the last
// one named wins.
func Propagator(names ...string) (propagation.TextMapPropagator, error) {
	var all []propagation.TextMapPropagator
	for _, name := range names {
		switch name {
		case "tracecontext":
			all = append(all, propagation.TraceContext{})
		case "baggage":
			all = append(all, propagation.Baggage{})
		case "jaeger":
			all = append(all, jaeger.Jaeger{})
		case "b3":
			all = append(all, b3.New(b3.WithInjectEncoding(b3.B3SingleHeader)))
		case "b3multi":
			all = append(all, b3.New(b3.WithInjectEncoding(b3.B3MultipleHeader)))
		case "none":
		default:
			return nil, fmt.Errorf("propagator %q is unknown: use tracecontext, baggage, jaeger, b3, b3multi or none", name)
		}
	}
	return propagation.NewCompositeTextMapPropagator(all...), nil
}
