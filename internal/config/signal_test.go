package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestMetricsTarget: metrics go where spans go, unless variables say otherwise for one of them;
// what is said of spans alone does not concern them, and nothing that the file has for one
// backend goes to another one.
func TestMetricsTarget(t *testing.T) {
	const (
		file    = "[metrics]\nsend = 'on'\n[export]\nendpoint = 'https://file:4318/base'\nheaders = { key = 'planted' }\nca = '/file.pem'\ntimeout = '3s'\n"
		named   = "[export.target.b]\nendpoint = 'b:4317'\nprotocol = 'grpc'\n"
		metrics = "https://m:4318/own"
	)
	planted := map[string]string{"key": "planted"}
	for _, tt := range []struct {
		name, file string
		env        []string
		url        string // empty: nowhere
		holds      func(Target) bool
		ignored    int
	}{
		{"as spans", file, nil, "https://file:4318/base/v1/metrics", func(x Target) bool { return x.CA == "/file.pem" && reflect.DeepEqual(x.Headers, planted) }, 0},
		{"off", strings.Replace(file, "'on'", "'off'", 1), []string{ofMetrics + "ENDPOINT", metrics}, "", nil, 0},
		{"turned on", "export.endpoint = 'http://file:4318'", []string{"OTEL_METRICS_EXPORTER", "console,otlp"}, "http://file:4318/v1/metrics", nil, 1},
		{"turned off", file, []string{"OTEL_METRICS_EXPORTER", "none"}, "", nil, 0},
		{"of all signals", file, []string{ofAll + "ENDPOINT", "http://all:1", ofAll + "HEADERS", "a=b"}, "http://all:1/v1/metrics", func(x Target) bool { return x.Headers["a"] == "b" }, 0},
		{"spans elsewhere", file, []string{ofTraces + "ENDPOINT", "http://t:1/x", ofTraces + "HEADERS", "a=b", ofTraces + "PROTOCOL", "grpc"}, "https://file:4318/base/v1/metrics",
			func(x Target) bool { return reflect.DeepEqual(x.Headers, planted) && x.Protocol == "http/protobuf" }, 0},
		{"spans alone", "[metrics]\nsend = 'on'", []string{ofTraces + "ENDPOINT", "http://t:1/x"}, "", nil, 0},
		{"no spans", file, []string{"OTEL_TRACES_EXPORTER", "none"}, "https://file:4318/base/v1/metrics", nil, 0},
		{"spans to Zipkin", file, []string{"OTEL_TRACES_EXPORTER", "zipkin"}, "https://file:4318/base/v1/metrics", nil, 0},
		{"metrics elsewhere", file, []string{ofMetrics + "ENDPOINT", metrics, ofAll + "TIMEOUT", "50"}, metrics,
			func(x Target) bool {
				return x.CA == "" && x.Headers == nil && time.Duration(x.Timeout) == 50*time.Millisecond
			}, 0},
		{"all of metrics", file, []string{ofMetrics + "ENDPOINT", "m:4317", ofMetrics + "PROTOCOL", "grpc", ofMetrics + "INSECURE", "true", ofMetrics + "HEADERS", "a=m", ofAll + "HEADERS", "a=all",
			ofMetrics + "TIMEOUT", "7", ofMetrics + "COMPRESSION", "none", ofMetrics + "CERTIFICATE", "/m", ofMetrics + "CLIENT_CERTIFICATE", "/mc", ofMetrics + "CLIENT_KEY", "/mk"}, "http://m:4317",
			func(x Target) bool {
				return x.Protocol == "grpc" && x.Headers["a"] == "m" && time.Duration(x.Timeout) == 7*time.Millisecond && x.Compression == "none" && x.CA == "/m" && x.Cert == "/mc" && x.Key == "/mk"
			}, 0},
		{"some of metrics", file, []string{ofMetrics + "HEADERS", "a=m"}, "https://file:4318/base/v1/metrics", func(x Target) bool { return len(x.Headers) == 1 && x.Headers["a"] == "m" }, 0},
		{"nonsense", file, []string{ofMetrics + "ENDPOINT", "nonsense", ofMetrics + "COMPRESSION", "zstd", ofMetrics + "CLIENT_KEY", "/k", ofMetrics + "TEMPORALITY_PREFERENCE", "delta"},
			"https://file:4318/base/v1/metrics", func(x Target) bool { return reflect.DeepEqual(x.Headers, planted) && x.Key == "" }, 4},
		{"the host's own endpoint", file + "[otlp]\nlisten = ['127.0.0.1:4317']\n", []string{ofMetrics + "ENDPOINT", "http://localhost:4317"}, "https://file:4318/base/v1/metrics", nil, 1},
		{"beside the host's own endpoint", file + "[otlp]\nlisten = ['127.0.0.1:4317']\n", []string{ofAll + "ENDPOINT", "http://localhost:4317", ofMetrics + "ENDPOINT", metrics}, metrics, nil, 0},
		{"a further target", "[metrics]\nsend = 'on'\n" + named, nil, "https://b:4317/v1/metrics", func(x Target) bool { return x.Name == "b" }, 0},
		{"before a further target", file + named, []string{ofMetrics + "ENDPOINT", metrics}, metrics, nil, 0},
	} {
		cfg, r := Load("", env(append([]string{PathEnv, write(t, tt.file)}, tt.env...)...))
		to, ok := cfg.MetricsTarget()
		if got := to.MetricsURL(); ok != (tt.url != "") || ok && got != tt.url || ok && tt.holds != nil && !tt.holds(to) {
			t.Errorf("%s: %v, %s, %+v", tt.name, ok, got, to)
		}
		if len(r.Ignored) != tt.ignored || r.Err() != nil {
			t.Errorf("%s: %d ignored, want %d: %v, %v", tt.name, len(r.Ignored), tt.ignored, r.Ignored, r.Err())
		}
	}
}

// TestKeys: messages name what is to be changed.
func TestKeys(t *testing.T) {
	for want, to := range map[string]Target{
		"cert and key of [export] (OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY)": {},
		"cert and key of [export.target.b]": {Name: "b"},
		"OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY": {alone: true},
	} {
		if got := to.Keys("cert", "key"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestDeclaredMetrics: a reader with an exporter of OTLP turns metrics on, and says where they
// go and how often; without one the file's own settings hold.
func TestDeclaredMetrics(t *testing.T) {
	const own = "[metrics]\nsend = 'on'\n[export]\nendpoint = 'http://own:4318'\nheaders = { key = 'planted' }\n"
	reader := func(text string) string { return "meter_provider: {readers: [{periodic: {" + text + "}}]}" }
	const traces = "tracer_provider: {processors: [{batch: {exporter: {otlp_http: }}}]}\n"
	for name, tt := range map[string]struct {
		own, text string
		url       string // empty: nowhere
		holds     func(Config, Target) bool
		ignored   int
	}{
		"all": {"", reader("interval: 500, timeout: 5, exporter: {otlp_http: {endpoint: 'http://m:4318/own', headers: [{name: a, value: b}], timeout: 9, compression: gzip, tls: {ca_file: /ca}, temporality_preference: cumulative, default_histogram_aggregation: base2_exponential_bucket_histogram}}"),
			"http://m:4318/own", func(c Config, x Target) bool {
				return time.Duration(c.Metrics.Interval) == 500*time.Millisecond && x.Headers["a"] == "b" && time.Duration(x.Timeout) == 9*time.Millisecond && x.Compression == "gzip" && x.CA == "/ca" && !c.Export.Ships()
			}, 0},
		"defaults":     {own, reader("exporter: {otlp_http: }"), "http://localhost:4318/v1/metrics", func(_ Config, x Target) bool { return x.Compression == "none" && x.Headers == nil }, 0},
		"gRPC":         {own, reader("exporter: {otlp_grpc: }"), "http://localhost:4317", func(_ Config, x Target) bool { return x.Protocol == "grpc" }, 0},
		"beside spans": {own, traces + reader("exporter: {otlp_grpc: {endpoint: 'http://m:1'}}"), "http://m:1", func(c Config, _ Target) bool { return c.Export.URL() == "http://localhost:4318/v1/traces" }, 0},
		"no reader":    {own, "meter_provider: {readers: []}", "http://own:4318/v1/metrics", nil, 0},
		"spans only":   {own, traces, "", nil, 0},
		"others":       {own, "meter_provider: {readers: [{pull: {exporter: {prometheus/development: }}}, {periodic: {exporter: {console: }}}], views: []}", "http://own:4318/v1/metrics", nil, 3},
		"other values": {own, reader("exporter: {otlp_http: {temporality_preference: delta, default_histogram_aggregation: explicit_bucket_histogram}}"), "http://localhost:4318/v1/metrics", nil, 2},
	} {
		cfg, r := loadDeclared(t, tt.own, "file_format: '1.0'\n"+tt.text, nil)
		to, ok := cfg.MetricsTarget()
		url := to.MetricsURL()
		if to.Protocol == "grpc" {
			url = to.Endpoint
		}
		if ok != (tt.url != "") || ok && url != tt.url || ok && tt.holds != nil && !tt.holds(cfg, to) {
			t.Errorf("%s: %v, %s, %+v", name, ok, url, to)
		}
		if len(r.Ignored) != tt.ignored || r.Err() != nil {
			t.Errorf("%s: %v, %v", name, r.Ignored, r.Err())
		}
	}
}
