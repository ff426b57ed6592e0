package otlp

import (
	"bytes"
	"crypto/tls"
	"io"
	"mime"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/config"
)

// maxAnswer bounds what is read of an answer's body.
const maxAnswer = 1 << 20

// newHTTP also returns what closes the client's idle connections.
func newHTTP(cfg config.Export) (_ otlptrace.Client, closeIdle func(), _ error) {
	tlsConfig, err := envTLS()
	if err != nil {
		return nil, nil, err
	}
	t := newTransport(tlsConfig)
	opts := []otlptracehttp.Option{
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}),
		otlptracehttp.WithHTTPClient(&http.Client{
			Transport: &transport{t},
			// A redirected POST may arrive as a GET, and its answer look like success.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
	}
	opts = append(opts, otlptracehttp.WithEndpointURL(cfg.URL()), otlptracehttp.WithHeaders(cfg.Headers))
	if cfg.Compression == "gzip" {
		opts = append(opts, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	return otlptracehttp.NewClient(opts...), t.CloseIdleConnections, nil
}

// newTransport has few connections and short patience: one upload runs at a time,
// to one host.
func newTransport(tlsConfig *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        2,
		IdleConnTimeout:     30 * time.Second,
	}
}

// transport notes the answer that passes through it.
type transport struct {
	*http.Transport
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	a := answerOf(req.Context())
	a.httpStatus, a.retryAfter = resp.StatusCode, retryAfter(resp.Header)
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "application/x-protobuf" && resp.StatusCode/100 == 2 {
		var msg coltracepb.ExportTraceServiceResponse
		if proto.Unmarshal(body, &msg) == nil {
			a.partial = msg.GetPartialSuccess()
		}
	}
	return resp, nil
}
