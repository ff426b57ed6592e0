// Package client makes the client for the configured backend. It is OpenTelemetry's own
// otlptracehttp or otlptracegrpc, with three differences, or one for Zipkin's API that
// behaves like these.
//
// It does not retry, because the shipper does, without losing anything. It accepts only
// OTLP answers: the answer of a proxy, a web server or another protocol is a failure
// that names its sender. And its errors distinguish what the collector refuses for good
// (ship.RejectedError), a request for a pause (ship.BusyError), an unreachable
// collector (ship.AwayError) and what may pass.
//
// It is linked only into the operator's tool.
package client

import (
	"context"
	"errors"
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

// New returns the client for cfg, which already holds the OTEL_EXPORTER_* variables. An
// error names the file that can't be used.
func New(cfg config.Target) (otlptrace.Client, error) {
	// The official clients read the variables again and log what they do not
	// understand, with the values: headers are secrets. Package config has reported it.
	otel.SetLogger(logr.Discard())
	p, hidden := newProxy(), new(secrets)
	tlsConfig, handshakes, err := newTLS(cfg)
	if err != nil {
		return nil, err
	}
	files := headerFiles{target: cfg, hidden: hidden}
	if _, err := files.read(); err != nil {
		return nil, err
	}
	c := &client{
		timeout:   time.Duration(cfg.Timeout),
		address:   newAddress(cfg, traces, p, hidden, handshakes),
		zipkin:    cfg.Protocol == "zipkin",
		closeIdle: func() {},
	}
	c.compress.Store(cfg.Compression == "gzip")
	if cfg.Protocol == "grpc" {
		c.Client = newGRPC(cfg, c.timeout, p, tlsConfig, files)
		c.plain = c.Client // the context says whether to compress
		return c, nil
	}
	t := &transport{newTransport(tlsConfig, p), files}
	c.closeIdle = t.CloseIdleConnections
	if c.zipkin {
		c.Client, c.plain = newZipkin(cfg, t)
	} else {
		c.Client, c.plain = newHTTP(cfg, t)
	}
	return c, nil
}

// client bounds the time of each upload and turns its answer into the shipper's errors.
type client struct {
	otlptrace.Client                  // compresses as configured
	plain            otlptrace.Client // does not compress
	timeout          time.Duration
	address          address
	zipkin           bool // speaks Zipkin's API, not OTLP
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
