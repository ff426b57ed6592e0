package client

import (
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// loadMetrics returns where metrics go, and what of the environment was ignored. They are on.
func (t *trial) loadMetrics() (config.Target, []error) {
	t.Helper()
	t.env["OTEL_METRICS_EXPORTER"] = "otlp"
	t.load()
	cfg, r := config.Load("", func(name string) string { return t.env[name] })
	to, _ := cfg.MetricsTarget()
	return to, r.Ignored
}

// metered fails unless metrics are taken.
func (t *trial) metered() {
	t.Helper()
	to, _ := t.loadMetrics()
	if err := exportMetrics(t.T, to); err != nil {
		t.Errorf("%v: %v", t.env, err)
	}
}

func (t *trial) metricsBaseURL() {
	s, g := t.http(nil), t.grpc(nil)
	for base, want := range map[string]string{"": "/v1/metrics", "/": "/v1/metrics", "/a/b/": "/a/b/v1/metrics"} {
		t.set("ENDPOINT", "http://"+s.address+base).metered()
		t.want("path", s.path, want)
	}
	t.set("ENDPOINT", "http://"+g.address, "PROTOCOL", "grpc").metered()
	if g.c.taken() != 1 {
		t.Errorf("%d taken", g.c.taken())
	}
}

func (t *trial) metricsURL() {
	s, g := t.http(nil), t.grpc(nil)
	t.set("METRICS_ENDPOINT", "http://"+s.address+"/own/v1/metrics", "ENDPOINT", "http://127.0.0.1:1").metered()
	t.want("path", s.path, "/own/v1/metrics")
	t.set("METRICS_ENDPOINT", "http://"+g.address, "METRICS_PROTOCOL", "grpc", "ENDPOINT", "http://127.0.0.1:1").metered()
	if g.c.taken() != 1 {
		t.Errorf("%d taken", g.c.taken())
	}
}

func (t *trial) metricsInsecure() {
	a := testkit.NewAuthority(t.T)
	open, secured := t.grpc(nil), t.grpc(&tls.Config{Certificates: []tls.Certificate{a.Issue(time.Hour)}})
	t.set("METRICS_PROTOCOL", "grpc", "METRICS_ENDPOINT", open.address, "METRICS_INSECURE", "true").metered()
	t.set("METRICS_PROTOCOL", "grpc", "METRICS_ENDPOINT", secured.address, "METRICS_CERTIFICATE", a.File()).metered()
	t.set("METRICS_PROTOCOL", "grpc", "METRICS_ENDPOINT", secured.address, "INSECURE", "true", "METRICS_INSECURE", "false", "METRICS_CERTIFICATE", a.File()).metered()
}

func (t *trial) metricsCertificates() {
	a := testkit.NewAuthority(t.T)
	cert, key := a.IssueFiles(time.Hour)
	for protocol, serve := range map[string]func(*tls.Config) *seen{overHTTP: t.http, overGRPC: t.grpc} {
		s := serve(&tls.Config{Certificates: []tls.Certificate{a.Issue(time.Hour)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.Pool()})
		t.set("PROTOCOL", protocol, "METRICS_ENDPOINT", "https://"+s.address+"/v1/metrics", "METRICS_CERTIFICATE", a.File(), "METRICS_CLIENT_CERTIFICATE", cert, "METRICS_CLIENT_KEY", key).metered()
	}
	t.set("METRICS_CLIENT_KEY", key)
	if _, ignored := t.loadMetrics(); len(ignored) != 1 {
		t.Errorf("reported %v", ignored)
	}
}

func (t *trial) metricsHeaders() {
	h, g := t.http(nil), t.grpc(nil)
	t.set("ENDPOINT", "http://"+h.address, "METRICS_HEADERS", "a=b%20c", "HEADERS", "a=all").metered()
	t.want("header", h.header.Get("a"), "b c")
	t.set("ENDPOINT", "http://"+g.address, "PROTOCOL", "grpc", "METRICS_HEADERS", "a=b%20c").metered()
	t.want("header", g.header.Get("a"), "b c")
}

func (t *trial) metricsCompression() {
	h := t.http(nil)
	for value, want := range map[string]string{"": "gzip", "gzip": "gzip", "none": ""} {
		t.set("ENDPOINT", "http://"+h.address, "METRICS_COMPRESSION", value).metered()
		t.want("encoding", h.header.Get("Content-Encoding"), want)
	}
}

func (t *trial) metricsTimeout() {
	t.set("ENDPOINT", "http://127.0.0.1:1", "METRICS_TIMEOUT", "1500", "TIMEOUT", "7")
	if to, _ := t.loadMetrics(); time.Duration(to.Timeout) != 1500*time.Millisecond {
		t.Errorf("%v", time.Duration(to.Timeout))
	}
	silent := t.silent()
	t.set("ENDPOINT", silent, "METRICS_TIMEOUT", "50")
	to, _ := t.loadMetrics()
	if err := exportMetrics(t.T, to); err == nil || causeOf(err) != "metrics: "+silent+" does not answer in time" {
		t.Errorf("without an answer: %v", err)
	}
}

func (t *trial) metricsProtocol() {
	h, g := t.http(nil), t.grpc(nil)
	t.set("ENDPOINT", "http://"+h.address).metered()
	t.want("content type", h.header.Get("Content-Type"), "application/x-protobuf")
	t.set("ENDPOINT", "http://"+g.address, "METRICS_PROTOCOL", "grpc").metered()
	t.want("content type", g.header.Get("Content-Type"), "application/grpc")
	t.set("ENDPOINT", "http://"+h.address, "METRICS_PROTOCOL", "http/json").metered()
	if _, ignored := t.loadMetrics(); len(ignored) != 1 {
		t.Errorf("reported %v", ignored)
	}
}

func (t *trial) ofMetrics() {
	s := t.http(nil)
	t.set("METRICS_ENDPOINT", "http://"+s.address+"/m", "ENDPOINT", "http://127.0.0.1:1", "TRACES_ENDPOINT", "http://127.0.0.1:2",
		"METRICS_PROTOCOL", "http/protobuf", "PROTOCOL", "grpc", "TRACES_PROTOCOL", "grpc",
		"METRICS_HEADERS", "a=metrics", "HEADERS", "a=all", "TRACES_HEADERS", "a=traces",
		"METRICS_TIMEOUT", "60000", "TIMEOUT", "1", "TRACES_TIMEOUT", "2").metered()
	t.want("path", s.path, "/m")
	t.want("header", s.header.Get("a"), "metrics")
	t.set("ENDPOINT", "http://"+s.address, "TRACES_ENDPOINT", "http://127.0.0.1:2", "TRACES_HEADERS", "a=traces", "TRACES_COMPRESSION", "none").metered()
	t.want("path", s.path, "/v1/metrics")
	t.want("header", s.header.Get("a"), "")
	t.want("encoding", s.header.Get("Content-Encoding"), "gzip")
	if spans, _ := t.load(); spans.URL() != "http://127.0.0.1:2" {
		t.Errorf("spans go to %s", spans.URL())
	}
}

// onlyOne fails unless one value of a variable is silent, and the others are reported.
func (t *trial) onlyOne(variable, value string, others ...string) {
	t.Helper()
	for _, v := range append(others, value) {
		t.set("ENDPOINT", "http://127.0.0.1:1", variable, v)
		if _, ignored := t.loadMetrics(); (len(ignored) == 0) != (v == value) {
			t.Errorf("%s: reported %v", v, ignored)
		}
	}
}

func (t *trial) temporality() {
	t.onlyOne("METRICS_TEMPORALITY_PREFERENCE", "cumulative", "delta", "lowmemory")
}

func (t *trial) aggregation() {
	t.onlyOne("METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram", "explicit_bucket_histogram")
}

func (t *trial) metricsExporter() {
	for value, want := range map[string]struct{ on, reported bool }{
		"": {false, false}, "otlp": {true, false}, "none": {false, false}, "prometheus": {false, true}, "console,otlp": {true, true}, "none,otlp": {true, false},
	} {
		t.set("ENDPOINT", "http://127.0.0.1:1").load()
		t.env["OTEL_METRICS_EXPORTER"] = value
		cfg, r := config.Load("", func(name string) string { return t.env[name] })
		if _, on := cfg.MetricsTarget(); on != want.on || len(r.Ignored) > 0 != want.reported {
			t.Errorf("%q: on %v, reported %v", value, on, r.Ignored)
		}
	}
}

func (t *trial) metricsInterval() {
	for value, want := range map[string]time.Duration{"": time.Minute, "250": 250 * time.Millisecond, "often": time.Minute} {
		t.set().load()
		t.env["OTEL_METRIC_EXPORT_INTERVAL"] = value
		cfg, r := config.Load("", func(name string) string { return t.env[name] })
		if time.Duration(cfg.Metrics.Interval) != want || len(r.Ignored) > 0 != (value == "often") {
			t.Errorf("%q: %v, reported %v", value, time.Duration(cfg.Metrics.Interval), r.Ignored)
		}
	}
}

func (t *trial) metricsOnce() {
	tried := 0
	l := listen(t.T, "127.0.0.1:0")
	serveHandler(t.T, l, func(w http.ResponseWriter, _ *http.Request) {
		tried++
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	t.set("ENDPOINT", "http://"+l.Addr().String())
	to, _ := t.loadMetrics()
	if err := exportMetrics(t.T, to); err == nil || tried != 1 {
		t.Errorf("%v, after %d attempts", err, tried)
	}
	g := t.grpc(nil)
	g.c.failRPC = func() error { return status.Error(codes.Unavailable, "later") }
	t.set("ENDPOINT", "http://"+g.address, "PROTOCOL", "grpc")
	to, _ = t.loadMetrics()
	if err := exportMetrics(t.T, to); err == nil || g.c.tried() != 1 {
		t.Errorf("%v, after %d attempts", err, g.c.tried())
	}
}

// TestMetricsAnswers: what a backend answers to metrics is said, with what to do, and what it
// takes with a warning or in part is no failure without a word.
func TestMetricsAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		kind   string
		body   string
		says   string
	}{
		{"no metrics", http.StatusNotFound, "text/plain", "404 page not found", "answers 404 Not Found with text, which is no OTLP; if it takes no metrics, set send of [metrics] to \"off\""},
		{"no token", http.StatusUnauthorized, "text/plain", "no", "answers 401 Unauthorized with text, which is no OTLP; is a credential wrong or missing in headers of [export] (OTEL_EXPORTER_OTLP_HEADERS)?"},
		{"a web page", http.StatusOK, "text/html", "<title>UI</title>", "answers 200 OK with a web page, which is no OTLP" + noBaseURL},
		{"in part", http.StatusOK, "application/json", `{"partialSuccess":{"rejectedSpans":"1","errorMessage":"old"}}`, "takes an upload without some of its points"},
	} {
		l := listen(t, "127.0.0.1:0")
		answering(tt.status, tt.kind, tt.body)(t, l)
		if err := exportMetrics(t, exportTo(l, overHTTP, "")); err == nil || causeOf(err) != "metrics: http://"+l.Addr().String()+" "+tt.says {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	l := listen(t, "127.0.0.1:0")
	otherGRPC(t, l)
	if err := exportMetrics(t, exportTo(l, overGRPC, "")); err == nil || causeOf(err) != "metrics: http://"+l.Addr().String()+" answers Unimplemented"+noMetrics {
		t.Errorf("another service: %v", err)
	}
	err := exportMetrics(t, config.Target{Endpoint: "http://127.0.0.1:1", Protocol: overHTTP, HeaderFiles: map[string]string{"a": "/nosuch"}, Name: "b"})
	if want := "metrics: header a (header_files of [export.target.b]): /nosuch: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
