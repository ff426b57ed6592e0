package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestEnvironment: untidy values are understood if they are clear; others are reported
// and count as not set. Tracing goes on in any case.
func TestEnvironment(t *testing.T) {
	type vars = []string
	const url, trURL = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	const protocol, insecure = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_INSECURE"
	const sampler, arg = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
	to := func(endpoint, protocol string) func(*Config) {
		return func(c *Config) { c.Export.Endpoint, c.Export.Protocol = endpoint, protocol }
	}
	same := func(*Config) {}
	for _, tt := range []struct {
		vars    vars
		want    func(*Config)
		ignored int
	}{
		{vars{sampler, "traceidratio", arg, "0.25"}, func(c *Config) { c.Trace.Sampler, c.Trace.SamplerArg = "traceidratio", 0.25 }, 0},
		{vars{sampler, " ParentBased_Always_Off\n", arg, "\t0.25 "}, func(c *Config) { c.Trace.Sampler, c.Trace.SamplerArg = "parentbased_always_off", 0.25 }, 0},
		{vars{sampler, `"always_off"`}, func(c *Config) { c.Trace.Sampler = "always_off" }, 0},
		{vars{sampler, "jaeger_remote", arg, "endpoint=http://localhost:14250,pollingIntervalMs=5000"}, same, 1},
		{vars{sampler, "xray"}, same, 1},
		{vars{sampler, " "}, same, 0},
		{vars{sampler, "always_on,always_off"}, same, 1},
		{vars{arg, "25%"}, same, 1},
		{vars{arg, "NaN"}, same, 1},
		{vars{arg, "-0.1"}, same, 1},
		{vars{arg, "Inf"}, same, 1},
		{vars{arg, "0,5"}, same, 1},
		{vars{"OTEL_PROPAGATORS", "tracecontext, B3 ,"}, func(c *Config) { c.Trace.Propagators = []string{"tracecontext", "b3"} }, 0},
		{vars{"OTEL_PROPAGATORS", "xray,TraceContext,ottrace,tracecontext"}, func(c *Config) { c.Trace.Propagators = []string{"tracecontext"} }, 1},
		{vars{"OTEL_PROPAGATORS", "xray"}, same, 1},
		{vars{"OTEL_PROPAGATORS", ","}, same, 0},
		{vars{"OTEL_PROPAGATORS", "None"}, func(c *Config) { c.Trace.Propagators = []string{"none"} }, 0},
		{vars{"OTEL_PROPAGATORS", "none,b3"}, func(c *Config) { c.Trace.Propagators = []string{"b3"} }, 0},
		{vars{"OTEL_SDK_DISABLED", " True "}, func(c *Config) { c.Trace.Mode = "off" }, 0},
		{vars{"OTEL_SDK_DISABLED", "false"}, same, 0},
		{vars{"OTEL_SDK_DISABLED", "1"}, same, 1},
		{vars{url, "http://collector:4318/"}, to("http://collector:4318/", "http/protobuf"), 0},
		{vars{url, " 'HTTP://collector:4318' "}, to("HTTP://collector:4318", "http/protobuf"), 0},
		{vars{trURL, "http://collector:4318/x", url, "nonsense"}, func(c *Config) { c.Export.Endpoint, c.Export.exact = "http://collector:4318/x", true }, 0},
		{vars{trURL, "nonsense", url, "http://collector:4318"}, to("http://collector:4318", "http/protobuf"), 1},
		{vars{url, "otel-collector:4317"}, to("https://otel-collector:4317", "grpc"), 0},
		{vars{url, "otel-collector:4317", protocol, "GRPC"}, to("https://otel-collector:4317", "grpc"), 0},
		{vars{url, "otel-collector:4317", protocol, "http/protobuf"}, same, 1},
		{vars{url, "[::1]:4317", insecure, "TRUE"}, to("http://[::1]:4317", "grpc"), 0},
		{vars{url, "http://collector:4317", protocol, "grpc", insecure, "maybe"}, to("http://collector:4317", "grpc"), 1},
		{vars{url, "collector"}, same, 1},
		{vars{url, ":4317"}, same, 1},
		{vars{url, "collector:0"}, same, 1},
		{vars{url, "unix:/run/otel.sock"}, same, 1},
		{vars{url, "unix:///run/otel.sock", protocol, "grpc"}, func(c *Config) { c.Export.Protocol = "grpc" }, 1},
		{vars{url, "dns:///collector:4317"}, same, 1},
		{vars{url, "grpc://collector:4317"}, same, 1},
		{vars{protocol, "http/json"}, same, 1},
		{vars{protocol, " Http/Protobuf"}, same, 0},
		{vars{"OTEL_TRACES_EXPORTER", "None", url, "http://collector:4318"}, same, 0},
		{vars{"OTEL_TRACES_EXPORTER", "none,", url, "http://collector:4318"}, same, 0},
		{vars{"OTEL_TRACES_EXPORTER", "console,otlp", url, "http://c:1"}, to("http://c:1", "http/protobuf"), 1},
		{vars{"OTEL_TRACES_EXPORTER", "jaeger", url, "http://c:1"}, to("http://c:1", "http/protobuf"), 1},
		{vars{"OTEL_EXPORTER_OTLP_TIMEOUT", " 1500 "}, func(c *Config) { c.Export.Timeout = Duration(1500 * time.Millisecond) }, 0},
		{vars{"OTEL_EXPORTER_OTLP_TIMEOUT", "10s"}, same, 1},
		{vars{"OTEL_EXPORTER_OTLP_TIMEOUT", "0"}, same, 1},
		{vars{"OTEL_EXPORTER_OTLP_COMPRESSION", "NONE"}, func(c *Config) { c.Export.Compression = "none" }, 0},
		{vars{"OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"}, same, 1},
		{vars{"OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, tenant = x,"}, func(c *Config) {
			c.Export.Headers = map[string]string{"authorization": "Bearer abc", "tenant": "x"}
		}, 0},
		{vars{"OTEL_EXPORTER_OTLP_HEADERS", "nothing"}, same, 1},
		{vars{"OTEL_EXPORTER_OTLP_HEADERS", "a=x%0Ay"}, same, 1},
		{vars{"OTEL_EXPORTER_OTLP_HEADERS", "a b=x,c=d"}, func(c *Config) { c.Export.Headers = map[string]string{"c": "d"} }, 1},
		{vars{"OTEL_EXPORTER_OTLP_HEADERS", "a=b,nothing"}, func(c *Config) { c.Export.Headers = map[string]string{"a": "b"} }, 1},
		{vars{"OTEL_RESOURCE_ATTRIBUTES", "region=eu%2Fwest, zone=1,"}, func(c *Config) { c.Resource = map[string]string{"region": "eu/west", "zone": "1"} }, 0},
		{vars{"OTEL_RESOURCE_ATTRIBUTES", "city=Z\xfcrich,x"}, func(c *Config) { c.Resource = map[string]string{"city": "Z\xfcrich"} }, 1},
		{vars{"OTEL_SERVICE_NAME", "containerd", "OTEL_BSP_SCHEDULE_DELAY", "x", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "x"}, same, 0},
		// containerd 1.7.19 and later set these from their own configuration (endpoint,
		// protocol, insecure, sampling_ratio).
		{vars{url, "0.0.0.0:4317", protocol, "grpc", insecure, "true", sampler, "traceidratio", arg, "1"}, func(c *Config) {
			to("http://0.0.0.0:4317", "grpc")(c)
			c.Trace.Sampler = "traceidratio"
		}, 0},
		{vars{url, "0.0.0.0:4317"}, to("https://0.0.0.0:4317", "grpc"), 0},
	} {
		cfg, r := Load("", env(append(vars{PathEnv, write(t, "")}, tt.vars...)...))
		want := Default()
		tt.want(&want)
		cfg.Metrics.own = nil // TestMetricsTarget has it
		if !reflect.DeepEqual(cfg, want) {
			t.Errorf("%q:\n%+v\nwant\n%+v", tt.vars, cfg, want)
		}
		if len(r.Ignored) != tt.ignored || len(r.Mistakes) > 0 || len(r.Overrides) > 0 {
			t.Errorf("%q: %+v, want %d ignored", tt.vars, r, tt.ignored)
		}
		for _, err := range r.Ignored {
			if !strings.HasPrefix(err.Error(), "environment OTEL_") || !strings.Contains(err.Error(), "ignored") || len(err.Error()) > 300 {
				t.Errorf("%q: %v", tt.vars, err)
			}
		}
	}
}

func TestEnvironmentOverridesTheFile(t *testing.T) {
	path := write(t, `[export]
endpoint = "http://file:4318"
timeout = "7s"
headers = { tenant = "file" }
[trace]
propagators = ["b3"]
[resource]
zone = "file"
cluster = "file"
[runtime.kata.trace]
sampler = "always_on"
`)
	cfg, r := Load("kata", env(PathEnv, path,
		"OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/base/", "OTEL_EXPORTER_OTLP_HEADERS", "a=b", "OTEL_EXPORTER_OTLP_TIMEOUT", "7000",
		"OTEL_PROPAGATORS", "jaeger", "OTEL_TRACES_SAMPLER", "always_off", "OTEL_TRACES_SAMPLER_ARG", "0.5", "OTEL_RESOURCE_ATTRIBUTES", "zone=env"))
	if cfg.Export.Endpoint != "http://all:4318/base/" || len(cfg.Export.Headers) != 1 || cfg.Export.Headers["a"] != "b" || cfg.Trace.Propagators[0] != "jaeger" || cfg.Trace.Sampler != "always_off" {
		t.Errorf("%+v", cfg)
	}
	if cfg.Resource["zone"] != "env" || cfg.Resource["cluster"] != "file" {
		t.Errorf("%v", cfg.Resource)
	}
	// Equal values, and keys that the file does not set, override nothing.
	if all := strings.Join(r.Overrides, "\n"); len(r.Overrides) != 4 ||
		!strings.Contains(all, "OTEL_EXPORTER_OTLP_ENDPOINT overrides export.endpoint of the configuration") ||
		!strings.Contains(all, "export.headers") || !strings.Contains(all, "trace.propagators") || !strings.Contains(all, "trace.sampler ") {
		t.Errorf("%s", all)
	}
}

func TestURL(t *testing.T) {
	for _, tt := range []struct{ name, value, want string }{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318", "http://c:4318/v1/traces"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/base/", "http://c:4318/base/v1/traces"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/base", "http://c:4318/base"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", ""},
	} {
		if cfg, _ := Load("", env(PathEnv, write(t, ""), tt.name, tt.value)); cfg.Export.URL() != tt.want {
			t.Errorf("%s=%s: %s, want %s", tt.name, tt.value, cfg.Export.URL(), tt.want)
		}
	}
}

// TestNodeName: the environment's node name counts unless there is an attribute of that name.
func TestNodeName(t *testing.T) {
	for others, want := range map[string]string{"": "node-1", "a=b": "node-1", "k8s.node.name=mine": "mine"} {
		cfg, r := Load("", func(name string) string {
			return map[string]string{PathEnv: os.DevNull, "K8S_NODE_NAME": "node-1", "OTEL_RESOURCE_ATTRIBUTES": others}[name]
		})
		if got := cfg.Resource["k8s.node.name"]; got != want || r.Err() != nil || len(r.Ignored) > 0 {
			t.Errorf("with %q: %q, %+v", others, got, r)
		}
	}
}
