package config

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestPresets(t *testing.T) {
	for _, tt := range []struct{ file, url, protocol, mistake string }{
		{`preset = "jaeger"`, "http://127.0.0.1:4318/v1/traces", "http/protobuf", ""},
		{`preset = "zipkin"`, "http://127.0.0.1:9411/api/v2/spans", "zipkin", ""},
		{"preset = \"zipkin\"\nendpoint = \"http://z:1/base\"", "http://z:1/base/api/v2/spans", "zipkin", ""},
		{"preset = \"tempo\"\nendpoint = \"tempo:4317\"\nprotocol = \"grpc\"\ninsecure = true", "http://tempo:4317/v1/traces", "grpc", ""},
		{"endpoint = \"collector:4317\"\nprotocol = \"grpc\"", "https://collector:4317/v1/traces", "grpc", ""},
		{"preset = \"datadog-intake\"\nendpoint = \"https://otlp.datadoghq.eu\"", "https://otlp.datadoghq.eu/v1/traces", "http/protobuf", ""},
		{`preset = "grafana-cloud"`, "", "http/protobuf", "another address for each customer: set endpoint"},
		{"preset = \"grafana-cloud\"\nendpoint = \"https://otlp-gateway-eu.grafana.net/otlp\"", "https://otlp-gateway-eu.grafana.net/otlp/v1/traces", "http/protobuf", ""},
		{`preset = "jeager"`, "", "http/protobuf", `"jeager" is not one of datadog, datadog-intake, dynatrace, grafana-cloud, honeycomb, jaeger`},
		{"endpoint = \"collector:4317\"", "", "http/protobuf", "not a URL"},
		{"preset = \"jaeger\"\ninsecure = \"yes\"", "", "http/protobuf", "not true or false"},
		{"preset = \"jaeger\"\ncert = \"/c.pem\"", "", "http/protobuf", "a certificate needs its key"},
		{"preset = \"jaeger\"\nca = \"c.pem\"", "", "http/protobuf", "not an absolute path"},
		{"preset = \"jaeger\"\nheader_files = { \"a b\" = \"/f\" }", "", "http/protobuf", "no header's name"},
		{"preset = \"jaeger\"\nheader_files = { a = \"f\" }", "", "http/protobuf", "not an absolute path"},
	} {
		cfg, err := Parse([]byte("[export]\n"+tt.file+"\n"), "")
		if (err == nil) != (tt.mistake == "") || err != nil && !strings.Contains(err.Error(), tt.mistake) {
			t.Errorf("%q: %v, want %q", tt.file, err, tt.mistake)
		}
		if got := cfg.Export.URL(); got != tt.url || cfg.Export.Protocol != tt.protocol {
			t.Errorf("%q: %s by %s, want %s by %s", tt.file, got, cfg.Export.Protocol, tt.url, tt.protocol)
		}
	}
}

// TestPresetsAreDocumented: the document has each preset with what it sets, and no other.
func TestPresetsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/backends.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|(.*)$").FindAllStringSubmatch(string(text), -1) {
		rows[m[1]] = m[2]
	}
	for name, p := range presets {
		row, there := rows[name]
		if !there || !strings.Contains(row, p.endpoint) || !strings.Contains(row, p.protocol) {
			t.Errorf("%s: the document has %q", name, row)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s is documented and no preset", name)
	}
}
