package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shimtrace/shimtrace/internal/config"
)

// Metrics sends metrics to a target that speaks OTLP, one attempt at a time, with the same
// TLS, headers and proxy as its spans.
type Metrics struct {
	exporter  metricsExporter
	timeout   time.Duration
	address   address
	closeIdle func()
}

// metricsExporter is OpenTelemetry's.
type metricsExporter interface {
	Export(context.Context, *metricdata.ResourceMetrics) error
	Shutdown(context.Context) error
}

// NewMetrics returns the client for a target. An error names the file that can't be used.
func NewMetrics(cfg config.Target) (*Metrics, error) {
	otel.SetLogger(logr.Discard()) // see New
	p, hidden := newProxy(), new(secrets)
	tlsConfig, handshakes, err := newTLS(cfg)
	if err != nil {
		return nil, err
	}
	files := headerFiles{target: cfg, hidden: hidden}
	m := &Metrics{timeout: time.Duration(cfg.Timeout), address: newAddress(cfg, metrics, p, hidden, handshakes), closeIdle: func() {}}
	if cfg.Protocol == "grpc" {
		opts := []otlpmetricgrpc.Option{
			otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: false}),
			otlpmetricgrpc.WithTimeout(m.timeout),
			otlpmetricgrpc.WithDialOption(dialOptions(cfg, p, files)...),
			otlpmetricgrpc.WithEndpointURL(cfg.Endpoint),
			otlpmetricgrpc.WithHeaders(cfg.Headers),
		}
		if tlsConfig == nil {
			opts = append(opts, otlpmetricgrpc.WithTLSCredentials(insecure.NewCredentials()))
		} else {
			opts = append(opts, otlpmetricgrpc.WithTLSCredentials(credentials.NewTLS(tlsConfig)))
		}
		if cfg.Compression == "gzip" {
			opts = append(opts, otlpmetricgrpc.WithCompressor("gzip"))
		}
		m.exporter, err = otlpmetricgrpc.New(context.Background(), opts...)
		return m, err
	}
	t := &transport{newTransport(tlsConfig, p), files}
	m.closeIdle = t.CloseIdleConnections
	compression := otlpmetrichttp.NoCompression
	if cfg.Compression == "gzip" {
		compression = otlpmetrichttp.GzipCompression
	}
	m.exporter, err = otlpmetrichttp.New(context.Background(),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: false}),
		otlpmetrichttp.WithHTTPClient(&http.Client{Transport: t, CheckRedirect: noRedirect}),
		otlpmetrichttp.WithEndpointURL(cfg.MetricsURL()),
		otlpmetrichttp.WithHeaders(cfg.Headers),
		otlpmetrichttp.WithTLSClientConfig(nil), // the transport has it
		otlpmetrichttp.WithCompression(compression),
	)
	return m, err
}

// Export sends metrics. The error holds no secret that was sent. Its method Cause, if it has one,
// returns the part that is the same at each attempt.
func (m *Metrics) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	if m.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.timeout)
		defer cancel()
	}
	seen := new(answer)
	err := m.exporter.Export(context.WithValue(ctx, answerKey{}, seen), rm)
	if seen.came() {
		m.address.tls.answered()
	}
	var of verdict
	switch {
	case seen.http != nil:
		of = seen.http.judge(m.address, points(rm))
	case seen.grpc != nil:
		of = seen.grpc.judge(m.address, points(rm))
	case err != nil:
		of.err = m.address.unanswered(err)
	}
	if of.err == nil {
		return nil
	}
	var why *said
	if errors.As(of.err, &why) {
		return &said{"metrics: " + why.cause, why.detail}
	}
	return fmt.Errorf("metrics: %w", of.err)
}

// points returns the number of points of metrics.
func points(rm *metricdata.ResourceMetrics) (n int) {
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				n += len(data.DataPoints)
			case metricdata.ExponentialHistogram[float64]:
				n += len(data.DataPoints)
			}
		}
	}
	return n
}

// Close closes the connections.
func (m *Metrics) Close(ctx context.Context) {
	_ = m.exporter.Shutdown(ctx)
	m.closeIdle()
}
