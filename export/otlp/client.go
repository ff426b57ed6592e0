// Package otlp makes the client for the configured collector: OpenTelemetry's own
// otlptracehttp or otlptracegrpc, with two differences.
//
// It does not retry, because the shipper does, without losing anything. And its
// errors tell what the collector refuses for good (ship.RejectedError) and where
// it asks for a pause (ship.BusyError) from failures that may pass.
//
// It is linked in the operator's tool only.
package otlp

import (
	"context"
	"os"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/config"
)

// NewClient returns the client for cfg, in which the OTEL_EXPORTER_OTLP_* variables are
// already, but for those for certificates. An error names the variable that is wrong.
func NewClient(cfg config.Export) (otlptrace.Client, error) {
	// The official clients read the variables once more and say what they do not
	// understand, with the values: headers are secrets. Package config has said it.
	otel.SetLogger(logr.Discard())
	timeout := time.Duration(cfg.Timeout)
	if cfg.Protocol == "grpc" {
		return &client{Client: newGRPC(cfg, timeout), timeout: timeout, closeIdle: func() {}}, nil
	}
	inner, closeIdle, err := newHTTP(cfg)
	if err != nil {
		return nil, err
	}
	return &client{Client: inner, timeout: timeout, closeIdle: closeIdle}, nil
}

// client bounds each upload and turns what was seen of it into the shipper's errors.
type client struct {
	otlptrace.Client
	timeout   time.Duration
	closeIdle func()
}

// Stop implements [otlptrace.Client].
func (c *client) Stop(ctx context.Context) error {
	defer c.closeIdle()
	return c.Client.Stop(ctx)
}

// UploadTraces implements [otlptrace.Client]: one attempt.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	seen := new(answer)
	err := c.Client.UploadTraces(context.WithValue(ctx, answerKey{}, seen), spans)
	return seen.judge(err)
}

// env returns the variable's value as the specification orders them: the one for
// traces before the one for all signals.
func env(name string) string {
	if v := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_" + name); v != "" {
		return v
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_" + name)
}
