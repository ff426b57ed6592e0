package client

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/config"
)

// zipkin posts spans to Zipkin's API, version 2, as JSON
// (https://zipkin.io/zipkin-api/#/default/post_spans).
type zipkin struct {
	http     *http.Client
	url      string
	headers  map[string]string
	compress bool
}

// newZipkin returns the same as newHTTP.
func newZipkin(cfg config.Target, t *transport) (_, plain otlptrace.Client) {
	c := &http.Client{Transport: t, CheckRedirect: noRedirect}
	plain = &zipkin{http: c, url: cfg.URL(), headers: cfg.Headers}
	if cfg.Compression != "gzip" {
		return plain, plain
	}
	return &zipkin{http: c, url: cfg.URL(), headers: cfg.Headers, compress: true}, plain
}

// Start implements [otlptrace.Client].
func (*zipkin) Start(context.Context) error { return nil }

// Stop implements [otlptrace.Client].
func (*zipkin) Stop(context.Context) error { return nil }

// UploadTraces implements [otlptrace.Client]. The transport keeps the answer.
func (z *zipkin) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	list, left := zipkinSpans(spans)
	answerOf(ctx).left = left
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if z.compress {
		var compressed bytes.Buffer
		w := gzip.NewWriter(&compressed)
		if _, err := w.Write(body); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		body = compressed.Bytes()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, z.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, value := range z.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/json")
	if z.compress {
		req.Header.Set("Content-Encoding", "gzip")
	}
	resp, err := z.http.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return err
}
