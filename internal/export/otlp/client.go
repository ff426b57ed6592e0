// Package otlp makes the client for the configured collector. It is OpenTelemetry's own
// otlptracehttp or otlptracegrpc, with three differences.
//
// It does not retry, because the shipper does, without losing anything. It accepts only
// OTLP answers: the answer of a proxy, a web server or another protocol is a failure
// that names its sender. And its errors distinguish what the collector refuses for good
// (ship.RejectedError), a request for a pause (ship.BusyError), an unreachable
// collector (ship.AwayError) and what may pass.
//
// It is linked only into the operator's tool.
package otlp

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/ship"
)

// NewClient returns the client for cfg, which already holds the OTEL_EXPORTER_OTLP_*
// variables except those for certificates. An error names the variable that is wrong.
func NewClient(cfg config.Export) (otlptrace.Client, error) {
	// The official clients read the variables again and log what they do not
	// understand, with the values: headers are secrets. Package config has reported it.
	otel.SetLogger(logr.Discard())
	p := newProxy()
	c := &client{
		timeout:   time.Duration(cfg.Timeout),
		address:   newAddress(cfg, p),
		closeIdle: func() {},
	}
	c.compress.Store(cfg.Compression == "gzip")
	if cfg.Protocol == "grpc" {
		c.Client = newGRPC(cfg, c.timeout, p)
		c.plain = c.Client // the context tells it
		return c, nil
	}
	var err error
	c.Client, c.plain, c.closeIdle, err = newHTTP(cfg, p)
	return c, err
}

// client bounds the time of each upload and turns its answer into the shipper's errors.
type client struct {
	otlptrace.Client                  // compresses as configured
	plain            otlptrace.Client // does not compress
	timeout          time.Duration
	address          address
	closeIdle        func()

	compress   atomic.Bool // uploads are compressed
	compressed atomic.Bool // a compressed upload has been taken
}

// Stop implements [otlptrace.Client].
func (c *client) Stop(ctx context.Context) error {
	defer c.closeIdle()
	return c.Client.Stop(ctx)
}

// UploadTraces implements [otlptrace.Client]: one attempt. If compression may be why it
// is refused, it is repeated without, within the same timeout.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	compress := c.compress.Load()
	v := c.attempt(ctx, spans, compress)
	if !compress || v.err == nil {
		if compress {
			c.compressed.Store(true)
		}
		return v.err
	}
	if !v.compression || c.compressed.Load() {
		return v.err
	}
	again := c.attempt(ctx, spans, false)
	var rejected *ship.RejectedError
	if !again.otlp || errors.As(again.err, &rejected) && rejected.Spans == ship.AllSpans {
		if again.otlp && !v.otlp {
			return again.err
		}
		return v.err // compression was not the cause
	}
	c.compress.Store(false)
	if again.err == nil {
		again.err = &ship.TakenError{Message: c.address.name + " takes no uploads in gzip; they go on without"}
	}
	return again.err
}

func (c *client) attempt(ctx context.Context, spans []*tracepb.ResourceSpans, compress bool) verdict {
	seen := new(answer)
	inner := c.Client
	if !compress {
		inner, ctx = c.plain, context.WithValue(ctx, plainKey{}, true)
	}
	err := inner.UploadTraces(context.WithValue(ctx, answerKey{}, seen), spans)
	return c.judge(seen, journal.CountSpans(&tracepb.TracesData{ResourceSpans: spans}), err)
}

// plainKey marks the context of an upload that is not to be compressed.
type plainKey struct{}

// env returns the variable for traces, or else the one for all signals, as the
// specification orders them.
func env(name string) string {
	if v := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_" + name); v != "" {
		return v
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_" + name)
}
