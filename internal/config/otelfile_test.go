package config

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// loadDeclared loads a configuration with a file of our own, a declarative one, and an
// environment.
func loadDeclared(t *testing.T, own, text string, env map[string]string) (Config, Report) {
	t.Helper()
	dir := t.TempDir()
	ours, declarative := filepath.Join(dir, "config.toml"), filepath.Join(dir, "otel.yaml")
	for path, text := range map[string]string{ours: own, declarative: text} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env = maps.Clone(env)
	if env == nil {
		env = make(map[string]string)
	}
	env[PathEnv], env[ConfigFileEnv] = ours, declarative
	return Load("", func(name string) string { return env[name] })
}

const wholeFile = `
file_format: "1.1"
disabled: ${OFF:-false}
log_level: warn2
resource:
  attributes_list: ${OTEL_RESOURCE_ATTRIBUTES}
  attributes:
    - name: service.name
      value: theirs
    - name: k8s.cluster.name
      value: "west, 1"
      type: string
propagator:
  composite:
    - tracecontext:
    - b3:
  composite_list: baggage
attribute_limits:
  attribute_count_limit: 128
tracer_provider:
  processors:
    - batch:
        schedule_delay: 5000
        exporter:
          otlp_http:
            endpoint: ${ENDPOINT:-https://localhost:4318}/v1/traces
            tls:
              ca_file: /etc/ca.pem
              cert_file: /etc/cert.pem
              key_file: /etc/key.pem
            headers:
              - name: authorization
                value: Bearer ${env:TOKEN}=,
            headers_list: "x-a=1,authorization=less"
            compression: gzip
            timeout: 3000
    - simple:
        exporter:
          console:
  limits:
    event_count_limit: 5
  sampler:
    parent_based:
      root:
        trace_id_ratio_based:
          ratio: 0.25
      remote_parent_not_sampled:
        always_on:
meter_provider:
  readers: []
`

// TestDeclared: each key that concerns shimtrace counts, over its own file; no other variable
// does, and what is not used is named.
func TestDeclared(t *testing.T) {
	own := "[export]\nendpoint = 'http://other:4318'\nheaders = { secret = 'planted' }\nheader_files = { a = '/x' }\nonly = 'slow'\n[export.target.more]\nendpoint = 'http://more:4318'\n[trace]\nslow = '1s'\n[resource]\nmine = 'yes'\n"
	cfg, r := loadDeclared(t, own, wholeFile, map[string]string{
		"TOKEN": "planted-token", "OTEL_RESOURCE_ATTRIBUTES": "a=b%20c", "OTEL_TRACES_SAMPLER": "always_off", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://nowhere:1", "OTEL_SDK_DISABLED": "true",
	})
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	e := cfg.Export
	if e.URL() != "https://localhost:4318/v1/traces" || e.Protocol != "http/protobuf" || e.CA != "/etc/ca.pem" || e.Cert != "/etc/cert.pem" || e.Key != "/etc/key.pem" ||
		e.Compression != "gzip" || e.Timeout != Duration(3*time.Second) || !reflect.DeepEqual(e.Headers, map[string]string{"authorization": "Bearer planted-token=,", "x-a": "1"}) || e.HeaderFiles != nil {
		t.Errorf("export %+v", e.Target)
	}
	if e.Only != "slow" || e.Targets["more"].Endpoint == "" || cfg.Log.Level != "warn" || cfg.Trace.Mode != "static" || cfg.Trace.Slow != Duration(time.Second) {
		t.Errorf("the rest: %+v", cfg)
	}
	if cfg.Trace.Sampler != "parentbased_traceidratio" || cfg.Trace.SamplerArg != 0.25 || !slices.Equal(cfg.Trace.Propagators, []string{"tracecontext", "b3", "baggage"}) {
		t.Errorf("trace %+v", cfg.Trace)
	}
	if want := map[string]string{"a": "b c", "k8s.cluster.name": "west, 1", "mine": "yes"}; !reflect.DeepEqual(cfg.Resource, want) {
		t.Errorf("resource %v, want %v", cfg.Resource, want)
	}
	var said string
	for _, err := range r.Ignored {
		said += err.Error() + "\n"
	}
	for _, key := range []string{"attribute_limits: ", "tracer_provider.processors[1].simple.exporter.console: ", "tracer_provider.limits: ", "parent_based.remote_parent_not_sampled.always_on: "} {
		if strings.Count(said, key) != 1 {
			t.Errorf("%q is not named:\n%s", key, said)
		}
	}
	if len(r.Ignored) != 4 || strings.Contains(said, "planted") {
		t.Errorf("said is\n%s", said)
	}
	if got := Files(func(name string) string {
		return map[string]string{ConfigFileEnv: "/a.yaml", PathEnv: os.DevNull}[name]
	}); !slices.Equal(got, []string{"/a.yaml"}) {
		t.Errorf("files %q", got)
	}
}

// TestDeclaredForms are shorter files, and what they mean.
func TestDeclaredForms(t *testing.T) {
	const exporter = "tracer_provider: {processors: [{batch: {exporter: {"
	for name, tt := range map[string]struct {
		text    string
		holds   func(Config) bool
		ignored int
	}{
		"nothing":  {"", func(c Config) bool { return reflect.DeepEqual(c, Default()) }, 0},
		"disabled": {"disabled: true", func(c Config) bool { return c.Trace.Mode == "off" }, 0},
		"defaults": {exporter + "otlp_http: }}}]}", func(c Config) bool {
			return c.Export.URL() == "http://localhost:4318/v1/traces" && c.Export.Compression == "none"
		}, 0},
		"gRPC": {exporter + "otlp_grpc: }}}]}", func(c Config) bool {
			return c.Export.Endpoint == "http://localhost:4317" && c.Export.Protocol == "grpc"
		}, 0},
		"host and port": {exporter + "otlp_grpc: {endpoint: 'c:4317', tls: {insecure: true}}}}}]}", func(c Config) bool { return c.Export.Endpoint == "http://c:4317" }, 0},
		"bad endpoint":  {exporter + "otlp_http: {endpoint: 'ftp://x'}}}}]}", func(c Config) bool { return c.Export.Endpoint == "" }, 1},
		"JSON":          {exporter + "otlp_http: {encoding: json}}}}]}", func(c Config) bool { return c.Export.Endpoint != "" }, 1},
		"two exporters": {"tracer_provider: {processors: [{batch: {exporter: {otlp_grpc: }}}, {simple: {exporter: {otlp_http: }}}]}", func(c Config) bool { return c.Export.Protocol == "grpc" }, 1},
		"always off":    {"tracer_provider: {sampler: {always_off: }}", func(c Config) bool { return c.Trace.Sampler == "always_off" }, 0},
		"parent based":  {"tracer_provider: {sampler: {parent_based: {root: {always_off: }}}}", func(c Config) bool { return c.Trace.Sampler == "parentbased_always_off" }, 0},
		"its default":   {"tracer_provider: {sampler: {parent_based: }}", func(c Config) bool { return c.Trace.Sampler == "parentbased_always_on" }, 0},
		"other sampler": {"tracer_provider: {sampler: {jaeger_remote/development: {}}}", func(c Config) bool { return c.Trace.Sampler == Default().Trace.Sampler }, 1},
		"bad ratio":     {"tracer_provider: {sampler: {trace_id_ratio_based: {ratio: 2}}}", func(c Config) bool { return c.Trace.Sampler == "traceidratio" }, 1},
		"bad reference": {"log_level: ${1}", func(c Config) bool { return c.Log.Level == "info" }, 1},
		"other kinds":   {"resource: 5\npropagator: [a]\nlog_level: {}", func(c Config) bool { return reflect.DeepEqual(c, Default()) }, 3},
	} {
		cfg, r := loadDeclared(t, "", "file_format: '1.0'\n"+tt.text, nil)
		if !tt.holds(cfg) || len(r.Ignored) != tt.ignored || r.Err() != nil {
			t.Errorf("%s: %+v, %q, %v", name, cfg.Export, r.Ignored, r.Err())
		}
	}
}

// TestDeclaredMistakes: a file that cannot be taken as a whole is a mistake, with its place,
// and nothing is sent.
func TestDeclaredMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "file_format",
		"file_format: '2.0'":       "line 1, column 14",
		"file_format: '1.0'\na: |": "line 2, column 4",
		"\tx":                      "line 1, column 1",
	} {
		cfg, r := loadDeclared(t, "export.endpoint = 'http://other:4318'", text, nil)
		if r.Err() == nil || !strings.Contains(r.Err().Error(), want) || len(cfg.Export.All()) > 0 {
			t.Errorf("%q: %v, %+v", text, r.Err(), cfg.Export)
		}
	}
	for _, path := range []string{"relative.yaml", "/nosuch/otel.yaml", "/"} {
		_, r := Load("", func(name string) string { return map[string]string{PathEnv: os.DevNull, ConfigFileEnv: path}[name] })
		if r.Err() == nil || r.Unreadable {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

// TestSubstitute has the examples of the specification.
func TestSubstitute(t *testing.T) {
	env := map[string]string{"STRING_VALUE": "value", "REPLACE_ME": "${DO_NOT_REPLACE_ME}", "EMPTY": ""}
	for text, want := range map[string]string{
		"${STRING_VALUE}": "value", "${env:STRING_VALUE}": "value", "${UNDEFINED:-fallback}": "fallback", "${EMPTY:-fallback}": "fallback", "${UNDEFINED}": "",
		"${REPLACE_ME}": "${DO_NOT_REPLACE_ME}", "${UNDEFINED:-a:-b}": "a:-b", "$${STRING_VALUE}": "${STRING_VALUE}", "$$${STRING_VALUE}": "$value", "a $ b": "a $ b",
		"foo ${STRING_VALUE} ${STRING_VALUE}": "foo value value", "$$$$": "$$", "$": "$",
	} {
		if got, err := substitute(text, func(name string) string { return env[name] }); got != want || err != nil {
			t.Errorf("%q became %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"${", "${}", "${1A}", "${A", "${a-b}", "${sys:A}", "${A:+b}", "${secret value}"} {
		if got, err := substitute(text, func(string) string { return "" }); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	}
}

// FuzzDeclared: whatever the file says, there is a valid configuration, and no error has what
// is secret in it.
func FuzzDeclared(f *testing.F) {
	f.Add(wholeFile)
	f.Add("file_format: '1.0'\ntracer_provider: {processors: [{batch: {exporter: {otlp_http: {headers: [{name: a, value: '${TOKEN}'}]}}}}]}")
	path := filepath.Join(f.TempDir(), "otel.yaml")
	getenv := func(name string) string {
		return map[string]string{PathEnv: os.DevNull, ConfigFileEnv: path, "TOKEN": "planted\nsecret"}[name]
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, r := Load("", getenv)
		if v := cfg.violations(); len(v) > 0 || r.Unreadable {
			t.Errorf("%q: %v, %v", text, v, r.Err())
		}
	})
}
