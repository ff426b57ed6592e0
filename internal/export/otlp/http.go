package otlp

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

// newHTTP returns a client that compresses as configured, one that does not, and a
// function that closes their idle connections.
func newHTTP(cfg config.Export, p *proxy) (_, plain otlptrace.Client, closeIdle func(), _ error) {
	var tlsConfig *tls.Config
	if !plaintext(cfg) {
		var err error
		if tlsConfig, err = envTLS(); err != nil {
			return nil, nil, nil, err
		}
	}
	t := newTransport(tlsConfig, p)
	opts := []otlptracehttp.Option{
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}),
		otlptracehttp.WithHTTPClient(&http.Client{
			Transport: &transport{t},
			// A redirected POST may arrive as a GET and get an answer that looks like
			// success.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
	}
	opts = append(opts, otlptracehttp.WithEndpointURL(cfg.URL()), otlptracehttp.WithHeaders(cfg.Headers),
		otlptracehttp.WithTLSClientConfig(nil)) // the transport has it
	plain = otlptracehttp.NewClient(append(opts, otlptracehttp.WithCompression(otlptracehttp.NoCompression))...)
	if cfg.Compression == "gzip" {
		opts = append(opts, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	return otlptracehttp.NewClient(opts...), plain, t.CloseIdleConnections, nil
}

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

// transport keeps the answer that passes through it.
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
	answerOf(req.Context()).http = &httpAnswer{status: resp.StatusCode, header: resp.Header, body: body}
	return resp, nil
}
