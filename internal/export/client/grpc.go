package client

import (
	"context"
	"crypto/tls"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	colmetricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"

	"github.com/shimtrace/shimtrace/internal/config"
)

// dialOptions returns how a target is connected to.
func dialOptions(cfg config.Target, p *proxy, files headerFiles) []grpc.DialOption {
	dial := []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(files.addTo, noteAnswer),
		// gRPC's own pause between connections grows to two minutes and fails every
		// upload meanwhile. The shipper's backoff is to be the longer one.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 250 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
	}
	if !p.betweenGRPC(cfg.Endpoint) {
		dial = append(dial, grpc.WithNoProxy())
	}
	return dial
}

func newGRPC(cfg config.Target, timeout time.Duration, p *proxy, tlsConfig *tls.Config, files headerFiles) otlptrace.Client {
	opts := []otlptracegrpc.Option{
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: false}),
		otlptracegrpc.WithTimeout(timeout),
		otlptracegrpc.WithDialOption(dialOptions(cfg, p, files)...),
	}
	opts = append(opts, otlptracegrpc.WithEndpointURL(cfg.Endpoint), otlptracegrpc.WithHeaders(cfg.Headers))
	if tlsConfig == nil {
		opts = append(opts, otlptracegrpc.WithTLSCredentials(insecure.NewCredentials()))
	} else {
		opts = append(opts, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(tlsConfig)))
	}
	if cfg.Compression == "gzip" {
		opts = append(opts, otlptracegrpc.WithCompressor("gzip"))
	}
	return otlptracegrpc.NewClient(opts...)
}

// addTo adds the headers from files to each call.
func (h headerFiles) addTo(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	headers, err := h.read()
	if err != nil {
		return err
	}
	for name, value := range headers {
		ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), value)
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// noteAnswer keeps the answer, which the client returns as text only, and turns
// compression off where the context asks for it.
func noteAnswer(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var header, trailer metadata.MD
	opts = append(opts, grpc.Header(&header), grpc.Trailer(&trailer))
	if ctx.Value(plainKey{}) != nil {
		opts = append(opts, grpc.UseCompressor(encoding.Identity))
	}
	err := invoke(ctx, method, req, reply, cc, opts...)
	switch r := reply.(type) {
	case *coltracepb.ExportTraceServiceResponse:
		answerOf(ctx).grpc = newGRPCAnswer(err, r.GetPartialSuccess(), header, trailer)
	case *colmetricspb.ExportMetricsServiceResponse:
		p := r.GetPartialSuccess()
		answerOf(ctx).grpc = newGRPCAnswer(err, &coltracepb.ExportTracePartialSuccess{RejectedSpans: p.GetRejectedDataPoints(), ErrorMessage: p.GetErrorMessage()}, header, trailer)
	}
	return err
}
