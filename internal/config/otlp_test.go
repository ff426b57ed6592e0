package config

import (
	"strconv"
	"strings"
	"testing"
)

// TestOTLPAddresses: only what no other host reaches can be listened at, and the host
// has its endpoint once.
func TestOTLPAddresses(t *testing.T) {
	for address, ok := range map[string]bool{
		"unix:/run/shimtrace/otlp.sock": true, "unix:///run/otlp.sock": true, "127.0.0.1:4317": true, "[::1]:4318": true,
		"unix:otlp.sock": false, "unix:": false, "0.0.0.0:4317": false, "10.0.0.1:4317": false, ":4317": false,
		"localhost:4317": false, "127.0.0.1:0": false, "/run/otlp.sock": false,
	} {
		cfg, err := Parse([]byte("[otlp]\nlisten = ["+strconv.Quote(address)+"]\n"), "")
		if (err == nil) != ok || len(cfg.OTLP.Listen) == 1 != ok {
			t.Errorf("%s: %v, listens at %q", address, err, cfg.OTLP.Listen)
		}
	}
	cfg, err := Parse([]byte("[otlp]\nlisten = ['127.0.0.1:1']\n[runtime.runc.otlp]\nlisten = ['127.0.0.1:2']\n"), "runc")
	if err == nil || !strings.Contains(err.Error(), "common [otlp]") || cfg.OTLP.Listen[0] != "127.0.0.1:1" {
		t.Error(err, cfg.OTLP)
	}
	for address, want := range map[string]string{"unix:/a/b": "/a/b", "unix:///a/b": "/a/b"} {
		if path, ok := UnixPath(address); !ok || path != want {
			t.Errorf("%s is the path %s", address, path)
		}
	}
}

// TestNoCircle: what containerd is told to send to us is not what we send to: neither by
// the environment that shims inherit from it nor by the file.
func TestNoCircle(t *testing.T) {
	path := write(t, "[otlp]\nlisten = ['127.0.0.1:4317', 'unix:/run/o.sock']\n[export]\nendpoint = 'http://collector:4318'\n")
	for endpoint, own := range map[string]bool{
		"http://127.0.0.1:4317": true, "http://localhost:4317/": true, "127.0.0.1:4317": true, "unix:///run/o.sock": true, "unix:/run/o.sock": true,
		"http://127.0.0.1:4318": false, "http://10.0.0.1:4317": false, "127.0.0.2:4317": false,
	} {
		for _, name := range otlp("ENDPOINT") {
			cfg, r := Load("runc", env(PathEnv, path, name, endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_HEADERS", "a=b"))
			kept := cfg.Export.Endpoint == "http://collector:4318" && cfg.Export.Protocol == "http/protobuf" && len(cfg.Export.Headers) == 0
			if kept != own || own && (len(r.Ignored) > 0 || len(r.Overrides) > 0) {
				t.Errorf("%s=%s: sent to %s by %s; %v", name, endpoint, cfg.Export.Endpoint, cfg.Export.Protocol, r)
			}
		}
	}
	cfg, err := Parse([]byte("[otlp]\nlisten = ['[::1]:4317']\n[export]\nendpoint = 'http://localhost:4317'\n"), "")
	if err == nil || !strings.Contains(err.Error(), "own OTLP endpoint") || cfg.Export.Endpoint != "" {
		t.Error(err, cfg.Export)
	}
}
