package client

import (
	"context"
	"errors"
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
	tlsConfig, err := newTLS(cfg)
	if err != nil {
		return nil, err
	}
	files := headerFiles{paths: cfg.HeaderFiles, hidden: hidden}
	m := &Metrics{timeout: time.Duration(cfg.Timeout), address: newAddress(cfg, p, hidden), closeIdle: func() {}}
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

// Export sends metrics. The error has no secret that was sent.
func (m *Metrics) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	if m.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.timeout)
		defer cancel()
	}
	if err := m.exporter.Export(ctx, rm); err != nil {
		return errors.New(m.address.name + " takes no metrics: " + m.address.excerpt(err.Error()))
	}
	return nil
}

// Close closes the connections.
func (m *Metrics) Close(ctx context.Context) {
	_ = m.exporter.Shutdown(ctx)
	m.closeIdle()
}
