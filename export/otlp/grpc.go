package otlp

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/shimtrace/shimtrace/config"
)

func newGRPC(cfg config.Export, timeout time.Duration) otlptrace.Client {
	opts := []otlptracegrpc.Option{
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: false}),
		otlptracegrpc.WithTimeout(timeout),
		otlptracegrpc.WithDialOption(
			grpc.WithChainUnaryInterceptor(noteAnswer),
			// gRPC's own pause between connections grows to two minutes, and fails
			// every upload meanwhile: the shipper's backoff shall be the longer one.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 250 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
				MinConnectTimeout: 10 * time.Second,
			})),
	}
	opts = append(opts, otlptracegrpc.WithEndpointURL(cfg.Endpoint), otlptracegrpc.WithHeaders(cfg.Headers))
	if cfg.Compression == "gzip" {
		opts = append(opts, otlptracegrpc.WithCompressor("gzip"))
	}
	return otlptracegrpc.NewClient(opts...)
}

// noteAnswer notes a partial success, which the client returns as text only.
func noteAnswer(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	if r, ok := reply.(*coltracepb.ExportTraceServiceResponse); ok && err == nil {
		answerOf(ctx).partial = r.GetPartialSuccess()
	}
	return err
}
