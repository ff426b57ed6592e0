package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

const backendsPath = "../../../docs/backends.md"

// specification has what OpenTelemetry's specification says of exporters ("OpenTelemetry
// Protocol Exporter", "Environment Variable Specification"), and what becomes of it here.
var specification = []struct {
	item, ours string
	prove      func(*trial)
	by         string // another test that proves it
}{
	{"`OTEL_EXPORTER_OTLP_ENDPOINT`, HTTP", "as specified: the base URL, to which `v1/traces` is appended", (*trial).baseURL, ""},
	{"`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, HTTP", "as specified: the whole URL, and it wins", (*trial).wholeURL, ""},
	{"default endpoint", "other: none; without an endpoint nothing is sent, since the journal is the store", (*trial).noEndpoint, ""},
	{"`OTEL_EXPORTER_OTLP_ENDPOINT`, gRPC", "as specified: a URL, whose scheme says whether there is TLS, or a host with a port", (*trial).endpointGRPC, ""},
	{"`OTEL_EXPORTER_OTLP_INSECURE`", "as specified: for a gRPC endpoint without a scheme; TLS by default", (*trial).insecure, ""},
	{"`OTEL_EXPORTER_OTLP_CERTIFICATE`", "as specified, over HTTP and gRPC; a relative path is made absolute", (*trial).certificate, ""},
	{"`OTEL_EXPORTER_OTLP_CLIENT_KEY`, `…_CLIENT_CERTIFICATE`", "as specified, over HTTP and gRPC; one without the other is ignored, and reported", (*trial).clientCertificate, ""},
	{"`OTEL_EXPORTER_OTLP_HEADERS`", "as specified: a list, percent-encoded; what is no header is left out, and reported", (*trial).headers, ""},
	{"`OTEL_EXPORTER_OTLP_COMPRESSION`", "`gzip` and `none`; other: the default is gzip", (*trial).compression, ""},
	{"`OTEL_EXPORTER_OTLP_TIMEOUT`", "as specified: milliseconds for an upload, by default 10 s", (*trial).timeout, ""},
	{"`OTEL_EXPORTER_OTLP_PROTOCOL`", "`grpc` and `http/protobuf`, the default; `http/json` is ignored, and reported", (*trial).protocol, ""},
	{"variables of one signal, `OTEL_EXPORTER_OTLP_TRACES_*`", "as specified: they win over those of all signals", (*trial).ofTraces, ""},
	{"an empty variable", "as specified: it counts as not set", (*trial).empty, ""},
	{"a value that is not understood", "as specified: it is ignored, with a warning", (*trial).unknown, ""},
	{"`User-Agent`", "as specified: OpenTelemetry's for Go", (*trial).userAgent, ""},
	{"retries", "as specified: exponential backoff with jitter, for as long as it takes", nil, "TestOutages"},
	{"`Retry-After`, `RetryInfo`", "as specified: the pause that is asked for, up to 5 minutes", nil, "TestMeaningOfHTTPAnswers"},
	{"partial success", "as specified: not sent again, counted, and the message reported", nil, "TestPartialSuccessIsOneAnswer"},
	{"`OTEL_TRACES_EXPORTER`", "`otlp`, `zipkin`, `none`; others are reported", (*trial).exporter, ""},
	{"`OTEL_EXPORTER_ZIPKIN_ENDPOINT`, `…_TIMEOUT`", "as specified, with `http://localhost:9411/api/v2/spans` and 10 s as defaults", (*trial).zipkin, ""},
	{"Zipkin's transformation", "as specified", nil, "TestZipkinSpan"},
	{"`OTEL_EXPORTER_OTLP_ENDPOINT`, metrics", "as specified: the base URL, to which `v1/metrics` is appended, or gRPC's", (*trial).metricsBaseURL, ""},
	{"`OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`", "as specified: the whole URL, or gRPC's, and it wins; nothing of `[export]` goes there", (*trial).metricsURL, ""},
	{"`OTEL_EXPORTER_OTLP_METRICS_INSECURE`", "as specified", (*trial).metricsInsecure, ""},
	{"`OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE`, `…_CLIENT_KEY`, `…_CLIENT_CERTIFICATE`", "as specified, over HTTP and gRPC", (*trial).metricsCertificates, ""},
	{"`OTEL_EXPORTER_OTLP_METRICS_HEADERS`", "as specified", (*trial).metricsHeaders, ""},
	{"`OTEL_EXPORTER_OTLP_METRICS_COMPRESSION`", "`gzip` and `none`; other: the default is gzip", (*trial).metricsCompression, ""},
	{"`OTEL_EXPORTER_OTLP_METRICS_TIMEOUT`", "as specified", (*trial).metricsTimeout, ""},
	{"`OTEL_EXPORTER_OTLP_METRICS_PROTOCOL`", "as for spans", (*trial).metricsProtocol, ""},
	{"variables of one signal, `OTEL_EXPORTER_OTLP_METRICS_*`", "as specified: they win over those of all signals; those of traces do not concern metrics", (*trial).ofMetrics, ""},
	{"`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`", "`cumulative`, the default; other: `delta` and `lowmemory` are ignored, and reported, since counts go over all processes", (*trial).temporality, ""},
	{"`OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`", "other: `base2_exponential_bucket_histogram` is the default; `explicit_bucket_histogram` is ignored, and reported", (*trial).aggregation, ""},
	{"`OTEL_METRICS_EXPORTER`", "`otlp`, `none`; other: the default is none; others are reported", (*trial).metricsExporter, ""},
	{"`OTEL_METRIC_EXPORT_INTERVAL`", "as specified: milliseconds, by default a minute", (*trial).metricsInterval, ""},
	{"retries, metrics", "other: none; the next upload has all counts, since they are cumulative", (*trial).metricsOnce, ""},
}

// TestExporterSpecification proves each row of the table in docs/backends.md.
// SHIMTRACE_WRITE_BACKENDS=1 writes the table.
func TestExporterSpecification(t *testing.T) {
	tests := functions(t)
	table := "| specification | shimtrace | test |\n|---|---|---|\n"
	for _, row := range specification {
		by := row.by
		if row.prove != nil {
			name := strings.Trim(regexp.MustCompile("[^A-Za-z0-9]+").ReplaceAllString(strings.ReplaceAll(row.item, "OTEL_", ""), "_"), "_")
			by = "TestExporterSpecification/" + name
			t.Run(name, func(t *testing.T) { row.prove(&trial{T: t, env: make(map[string]string)}) })
		} else if !tests[by] {
			t.Errorf("%s: there is no test %s", row.item, by)
		}
		table += "| " + row.item + " | " + row.ours + " | `" + by + "` |\n"
	}
	text, err := os.ReadFile(backendsPath)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\| specification \|.*\n(\|.*\n)+`).FindIndex(text)
	if found == nil {
		t.Fatalf("%s has no table of the specification", backendsPath)
	}
	if string(text[found[0]:found[1]]) == table {
		return
	}
	if os.Getenv("SHIMTRACE_WRITE_BACKENDS") == "" {
		t.Fatalf("%s is to have this table (SHIMTRACE_WRITE_BACKENDS=1 writes it):\n%s", backendsPath, table)
	}
	if t.Failed() {
		t.Fatal("not written: a row is not proven")
	}
	if err := os.WriteFile(backendsPath, []byte(string(text[:found[0]])+table+string(text[found[1]:])), 0o644); err != nil {
		t.Fatal(err)
	}
}

// functions returns the names of this package's tests.
func functions(t *testing.T) map[string]bool {
	t.Helper()
	files, _ := filepath.Glob("*_test.go")
	names := make(map[string]bool)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
	}
	return names
}

// trial is an exporter that the environment configures.
type trial struct {
	*testing.T
	env map[string]string
}

const otlpPrefix = "OTEL_EXPORTER_OTLP_"

// set sets variables, given in pairs, of which each name is without its prefix.
func (t *trial) set(pairs ...string) *trial {
	t.env = make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		t.env[otlpPrefix+pairs[i]] = pairs[i+1]
	}
	return t
}

func (t *trial) load() (config.Target, config.Report) {
	t.env[config.PathEnv] = os.DevNull
	cfg, r := config.Load("", func(name string) string { return t.env[name] })
	if len(r.Mistakes) > 0 {
		t.Errorf("%v", r.Mistakes)
	}
	return cfg.Export.Target, r
}

// reported fails unless so many variables were ignored.
func (t *trial) reported(n int) {
	t.Helper()
	if _, r := t.load(); len(r.Ignored) != n {
		t.Errorf("%v: %d reports, want %d: %v", t.env, len(r.Ignored), n, r.Ignored)
	}
}

func (t *trial) upload() error {
	t.Helper()
	cfg, _ := t.load()
	return newClient(t.T, cfg).UploadTraces(t.Context(), spans("a"))
}

// taken fails unless an upload is taken.
func (t *trial) taken() {
	t.Helper()
	if err := t.upload(); err != nil {
		t.Errorf("%v: %v", t.env, err)
	}
}

// seen is what a collector has got last.
type seen struct {
	address, path string
	header        http.Header
	c             *collector
}

func (t *trial) http(settings *tls.Config) *seen {
	l := listen(t.T, "127.0.0.1:0")
	s := &seen{address: l.Addr().String(), c: new(collector)}
	if settings != nil {
		l = tls.NewListener(l, settings)
	}
	serveHandler(t.T, l, func(w http.ResponseWriter, r *http.Request) {
		s.path, s.header = r.URL.Path, r.Header.Clone()
		s.c.ServeHTTP(w, r)
	})
	return s
}

func (t *trial) grpc(settings *tls.Config) *seen {
	l := listen(t.T, "127.0.0.1:0")
	s := &seen{address: l.Addr().String(), c: new(collector)}
	if settings != nil {
		settings.NextProtos = []string{"h2"}
		l = tls.NewListener(l, settings)
	}
	s.c.serveGRPC(t.T, l, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		s.header = make(http.Header)
		for name, values := range md {
			s.header[http.CanonicalHeaderKey(name)] = values
		}
		return handle(ctx, req)
	}))
	return s
}

func (t *trial) want(what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%v: %s %q, want %q", t.env, what, got, want)
	}
}

func (t *trial) baseURL() {
	s := t.http(nil)
	for base, want := range map[string]string{"": "/v1/traces", "/": "/v1/traces", "/a/b": "/a/b/v1/traces", "/a/b/": "/a/b/v1/traces"} {
		t.set("ENDPOINT", "http://"+s.address+base).taken()
		t.want("path", s.path, want)
	}
}

func (t *trial) wholeURL() {
	s := t.http(nil)
	for path, want := range map[string]string{"/x": "/x", "/v1/traces": "/v1/traces", "": "/"} {
		t.set("TRACES_ENDPOINT", "http://"+s.address+path, "ENDPOINT", "http://127.0.0.1:1").taken()
		t.want("path", s.path, want)
	}
}

func (t *trial) noEndpoint() {
	if cfg, _ := t.set().load(); cfg.Endpoint != "" {
		t.Errorf("the endpoint is %s", cfg.Endpoint)
	}
}

func (t *trial) endpointGRPC() {
	a := testkit.NewAuthority(t.T)
	open, secured := t.grpc(nil), t.grpc(&tls.Config{Certificates: []tls.Certificate{a.Issue(time.Hour)}})
	t.set("PROTOCOL", "grpc", "ENDPOINT", "http://"+open.address).taken()
	t.set("PROTOCOL", "grpc", "ENDPOINT", open.address, "INSECURE", "true").taken()
	t.set("PROTOCOL", "grpc", "ENDPOINT", "https://"+secured.address, "CERTIFICATE", a.File()).taken()
	if open.c.taken() != 2 || secured.c.taken() != 1 {
		t.Errorf("%d and %d spans", open.c.taken(), secured.c.taken())
	}
}

func (t *trial) insecure() {
	a := testkit.NewAuthority(t.T)
	open, secured := t.grpc(nil), t.grpc(&tls.Config{Certificates: []tls.Certificate{a.Issue(time.Hour)}})
	t.set("PROTOCOL", "grpc", "ENDPOINT", open.address, "INSECURE", "true").taken()
	t.set("PROTOCOL", "grpc", "ENDPOINT", secured.address, "CERTIFICATE", a.File()).taken()
	t.set("PROTOCOL", "grpc", "ENDPOINT", secured.address, "INSECURE", "false", "CERTIFICATE", a.File()).taken()
	t.set("PROTOCOL", "grpc", "ENDPOINT", "http://"+open.address, "INSECURE", "false").taken() // the scheme wins
	if t.set("PROTOCOL", "grpc", "ENDPOINT", open.address).upload() == nil {
		t.Error("an upload in plain text without a word")
	}
}

func (t *trial) certificate() {
	a := testkit.NewAuthority(t.T)
	for protocol, serve := range map[string]func(*tls.Config) *seen{"http/protobuf": t.http, "grpc": t.grpc} {
		s := serve(&tls.Config{Certificates: []tls.Certificate{a.Issue(time.Hour)}, ClientAuth: tls.NoClientCert})
		t.set("PROTOCOL", protocol, "ENDPOINT", "https://"+s.address, "CERTIFICATE", a.File()).taken()
		if t.set("PROTOCOL", protocol, "ENDPOINT", "https://"+s.address, "CERTIFICATE", testkit.NewAuthority(t.T).File()).upload() == nil {
			t.Errorf("%s: another authority's certificate is trusted", protocol)
		}
	}
	if cfg, _ := t.set("CERTIFICATE", "ca.pem").load(); !filepath.IsAbs(cfg.CA) {
		t.Errorf("the file is %s", cfg.CA)
	}
}

func (t *trial) clientCertificate() {
	a := testkit.NewAuthority(t.T)
	cert, key := a.IssueFiles(time.Hour)
	for protocol, serve := range map[string]func(*tls.Config) *seen{"http/protobuf": t.http, "grpc": t.grpc} {
		s := serve(&tls.Config{Certificates: []tls.Certificate{a.Issue(time.Hour)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.Pool()})
		own := []string{"PROTOCOL", protocol, "ENDPOINT", "https://" + s.address, "CERTIFICATE", a.File()}
		t.set(append(own, "CLIENT_CERTIFICATE", cert, "CLIENT_KEY", key)...).taken()
		if t.set(own...).upload() == nil {
			t.Errorf("%s: taken without a certificate", protocol)
		}
	}
	t.set("CLIENT_CERTIFICATE", cert).reported(1)
	t.set("CLIENT_KEY", key).reported(1)
}

func (t *trial) headers() {
	const list = "a=b, c = d%20e%2C ,nonsense"
	h, g := t.http(nil), t.grpc(nil)
	t.set("ENDPOINT", "http://"+h.address, "HEADERS", list).taken()
	t.set("ENDPOINT", "http://"+g.address, "HEADERS", list, "PROTOCOL", "grpc").taken()
	for _, s := range []*seen{h, g} {
		t.want("header", s.header.Get("a"), "b")
		t.want("header", s.header.Get("c"), "d e,")
	}
	t.reported(1)
}

func (t *trial) compression() {
	h, g := t.http(nil), t.grpc(nil)
	for value, want := range map[string]bool{"": true, "gzip": true, "none": false} {
		t.set("ENDPOINT", "http://"+h.address, "COMPRESSION", value).taken()
		if h.c.gzip != want {
			t.Errorf("%v: gzip %v", t.env, h.c.gzip)
		}
	}
	g.c.refuseGzip = errors.New("compressed")
	t.set("ENDPOINT", "http://"+g.address, "PROTOCOL", "grpc", "COMPRESSION", "none").taken()
	if g.c.tried() != 1 {
		t.Errorf("%d attempts without compression", g.c.tried())
	}
	t.set("COMPRESSION", "zstd").reported(1)
}

func (t *trial) timeout() {
	for value, want := range map[string]time.Duration{"": 10 * time.Second, "1500": 1500 * time.Millisecond} {
		if cfg, _ := t.set("TIMEOUT", value).load(); time.Duration(cfg.Timeout) != want {
			t.Errorf("%q: %v", value, time.Duration(cfg.Timeout))
		}
	}
	t.set("TIMEOUT", "soon").reported(1)
	if t.set("ENDPOINT", t.silent(), "TIMEOUT", "50").upload() == nil {
		t.Error("taken without an answer")
	}
}

// silent returns the URL of a server that takes requests and does not answer.
func (t *trial) silent() string {
	l, over := listen(t.T, "127.0.0.1:0"), make(chan struct{})
	serveHandler(t.T, l, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(over) })
	return "http://" + l.Addr().String()
}

func (t *trial) protocol() {
	h, g := t.http(nil), t.grpc(nil)
	t.set("ENDPOINT", "http://"+h.address).taken()
	t.want("content type", h.header.Get("Content-Type"), "application/x-protobuf")
	t.set("ENDPOINT", "http://"+h.address, "PROTOCOL", "http/protobuf").taken()
	t.set("ENDPOINT", "http://"+g.address, "PROTOCOL", "grpc").taken()
	t.want("content type", g.header.Get("Content-Type"), "application/grpc")
	t.set("ENDPOINT", "http://"+h.address, "PROTOCOL", "http/json").taken()
	t.want("content type", h.header.Get("Content-Type"), "application/x-protobuf")
	t.reported(1)
}

func (t *trial) ofTraces() {
	s := t.http(nil)
	t.set("TRACES_ENDPOINT", "http://"+s.address+"/x", "ENDPOINT", "http://127.0.0.1:1",
		"TRACES_HEADERS", "a=traces", "HEADERS", "a=all",
		"TRACES_COMPRESSION", "none", "COMPRESSION", "gzip",
		"TRACES_PROTOCOL", "http/protobuf", "PROTOCOL", "grpc",
		"TRACES_TIMEOUT", "60000", "TIMEOUT", "1").taken()
	t.want("path", s.path, "/x")
	t.want("header", s.header.Get("a"), "traces")
	if s.c.gzip {
		t.Error("it is compressed")
	}
	if cfg, _ := t.load(); time.Duration(cfg.Timeout) != time.Minute {
		t.Errorf("timeout %v", cfg.Timeout)
	}
	t.set("TRACES_CERTIFICATE", "/traces", "CERTIFICATE", "/all", "TRACES_CLIENT_KEY", "/tk", "TRACES_CLIENT_CERTIFICATE", "/tc", "CLIENT_KEY", "/k", "CLIENT_CERTIFICATE", "/c")
	if cfg, _ := t.load(); cfg.CA != "/traces" || cfg.Key != "/tk" || cfg.Cert != "/tc" {
		t.Errorf("%+v", cfg)
	}
}

func (t *trial) empty() {
	s := t.http(nil)
	t.set("ENDPOINT", "http://"+s.address, "TRACES_ENDPOINT", "", "PROTOCOL", "", "HEADERS", "", "TIMEOUT", "", "COMPRESSION", "", "CERTIFICATE", "", "INSECURE", "").taken()
	t.reported(0)
}

func (t *trial) unknown() {
	s := t.http(nil)
	t.set("ENDPOINT", "http://"+s.address, "PROTOCOL", "x", "TIMEOUT", "-1", "COMPRESSION", "x", "INSECURE", "x", "TRACES_ENDPOINT", "x").taken()
	t.reported(5)
}

func (t *trial) userAgent() {
	h, g := t.http(nil), t.grpc(nil)
	t.set("ENDPOINT", "http://"+h.address).taken()
	t.set("ENDPOINT", "http://"+g.address, "PROTOCOL", "grpc").taken()
	for _, s := range []*seen{h, g} {
		if agent := s.header.Get("User-Agent"); !strings.HasPrefix(agent, "OTel OTLP Exporter Go/") {
			t.Errorf("%q", agent)
		}
	}
}

func (t *trial) exporter() {
	for value, want := range map[string]string{
		"otlp": "http://c:4318/v1/traces", "none": "", "zipkin": "http://localhost:9411/api/v2/spans", "console": "http://c:4318/v1/traces",
	} {
		t.set("ENDPOINT", "http://c:4318").env["OTEL_TRACES_EXPORTER"] = value
		cfg, r := t.load()
		t.want("address", cfg.URL(), want)
		if (len(r.Ignored) > 0) != (value == "console") {
			t.Errorf("%s: reported %v", value, r.Ignored)
		}
	}
}

func (t *trial) zipkin() {
	path := ""
	l := listen(t.T, "127.0.0.1:0")
	serveHandler(t.T, l, func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.Path
		w.WriteHeader(http.StatusAccepted)
	})
	t.env = map[string]string{"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_ZIPKIN_ENDPOINT": "http://" + l.Addr().String() + "/own", "OTEL_EXPORTER_ZIPKIN_TIMEOUT": "60000"}
	cfg, _ := t.load()
	if err := newClient(t.T, cfg).UploadTraces(t.Context(), zipkinable(spans("a"))); err != nil {
		t.Error(err)
	}
	t.want("path", path, "/own")
	t.want("timeout", time.Duration(cfg.Timeout).String(), "1m0s")
	t.env = map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}
	cfg, _ = t.load()
	t.want("address", cfg.URL(), "http://localhost:9411/api/v2/spans")
	t.want("timeout", time.Duration(cfg.Timeout).String(), "10s")
}
