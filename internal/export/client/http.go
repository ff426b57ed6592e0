package client

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"

	"github.com/shimtrace/shimtrace/internal/config"
)

// maxAnswer bounds the part of an answer's body that is read, in bytes.
const maxAnswer = 1 << 20

// newHTTP returns a client that compresses as configured, and one that does not.
func newHTTP(cfg config.Target, t *transport) (_, plain otlptrace.Client) {
	opts := []otlptracehttp.Option{
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}),
		otlptracehttp.WithHTTPClient(&http.Client{Transport: t, CheckRedirect: noRedirect}),
		otlptracehttp.WithEndpointURL(cfg.URL()),
		otlptracehttp.WithHeaders(cfg.Headers),
		otlptracehttp.WithTLSClientConfig(nil), // the transport has it
	}
	plain = otlptracehttp.NewClient(append(opts, otlptracehttp.WithCompression(otlptracehttp.NoCompression))...)
	if cfg.Compression != "gzip" {
		return plain, plain
	}
	return otlptracehttp.NewClient(append(opts, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))...), plain
}

// noRedirect returns redirections as answers. A redirected POST may arrive as a GET and
// get an answer that looks like success.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// newTransport keeps few connections and short timeouts: at most two uploads run at a
// time, to one host.
func newTransport(tlsConfig *tls.Config, p *proxy) *http.Transport {
	return &http.Transport{
		Proxy:               p.of,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        2,
		IdleConnTimeout:     30 * time.Second,
	}
}

// transport adds the headers from files to each request, and keeps its answer.
type transport struct {
	*http.Transport
	files headerFiles
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	headers, err := t.files.read()
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context()) // a RoundTripper must not change it
	for name, value := range headers {
		req.Header.Set(name, value)
	}
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
	answerOf(req.Context()).http = &httpAnswer{status: resp.StatusCode, header: resp.Header, body: body}
	return resp, nil
}
