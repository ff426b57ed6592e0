package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func env(kv ...string) func(string) string {
	m := map[string]string{PathEnv: ""}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return func(k string) string { return m[k] }
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNoFileIsTheDefault(t *testing.T) {
	cfg, err := Parse(nil, "runc")
	if err != nil || !reflect.DeepEqual(cfg, Default()) {
		t.Errorf("got %+v, %v", cfg, err)
	}
	if err := cfg.validate(); err != nil {
		t.Errorf("the defaults are invalid: %v", err)
	}
	if _, err := Load("runc", env(PathEnv, "/does/not/exist")); err == nil {
		t.Error("a file that the environment names may be absent")
	}
}

func TestRuntimeSectionsOverride(t *testing.T) {
	const text = `
[trace]
slow = "1s"
quiet = ["State"]
[export]
endpoint = "http://127.0.0.1:4318"
[resource]
zone = "a"
[runtime.kata-qemu]
shim = "/opt/kata/bin/shim"
[runtime.kata-qemu.trace]
slow = "3s"
[runtime.kata-qemu.resource]
tier = "vm"
`
	kata, err := Parse([]byte(text), "kata-qemu")
	if err != nil {
		t.Fatal(err)
	}
	if kata.Shim != "/opt/kata/bin/shim" || kata.Runtime != "kata-qemu" || time.Duration(kata.Trace.Slow) != 3*time.Second {
		t.Errorf("kata: %+v", kata)
	}
	if len(kata.Trace.Quiet) != 1 || kata.Export.Endpoint == "" || kata.Resource["zone"] != "a" || kata.Resource["tier"] != "vm" {
		t.Errorf("kata lost what is common: %+v", kata)
	}
	runc, err := Parse([]byte(text), "runc")
	if err != nil {
		t.Fatal(err)
	}
	if runc.Shim != "" || runc.Runtime != "" || time.Duration(runc.Trace.Slow) != time.Second || len(runc.Resource) != 1 {
		t.Errorf("runc got kata's: %+v", runc)
	}
}

// TestMistakesAreNamed wants each error to say where and what.
func TestMistakesAreNamed(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"[trace]\nmod = \"static\"\n", `line 2, column 1: unknown key "trace.mod"`},
		{"[trace]\nmode = 7\n", "line 2, column 8: trace.mode: "},
		{"[trace\n", "line 1, column 7: expected"},
		{"[trace]\nmode = \"sometimes\"\n", `trace.mode: "sometimes" is not one of static, dynamic, off`},
		{"[trace]\nslow = \"5\"\n", `"5" is not a duration`},
		{"[trace]\nsampler_arg = 2.0\n", "trace.sampler_arg"},
		{"[trace]\npropagators = [\"xray\"]\n", `"xray" is not one of tracecontext`},
		{"[journal]\nmax_bytes = \"lots\"\n", `"lots" is not a size`},
		{"[journal]\nmax_bytes = \"1MiB\"\n", "journal.max_bytes"},
		{"[journal]\ndir = \"here\"\n", `journal.dir: "here" is not an absolute path`},
		{"[relay]\nstate_dir = \"/" + strings.Repeat("x", 80) + "\"\n", "relay.state_dir"},
		{"[export]\nendpoint = \"127.0.0.1:4318\"\n", "export.endpoint"},
		{"[runtime.runc.trace]\nmode = \"never\"\n", "[runtime.runc]: trace.mode"},
		{"[agent]\ninject = \"yes\"\n", `agent.inject: "yes" is not one of auto, on, off`},
		{"[agent]\nport = 0\n", "agent.port: 0 is no VSOCK port"},
		{"[jaeger]\nreceive = \"maybe\"\n", `jaeger.receive: "maybe" is not one of`},
		{"[jaeger]\nlisten = \"0.0.0.0:276\"\n", `jaeger.listen: "0.0.0.0:276" is not an address of the loopback interface`},
		{"[jaeger]\nlisten = \"localhost:276\"\n", `jaeger.listen: "localhost:276" is not an address`},
		{"[jaeger]\nbody_bytes = 0\n", "jaeger.body_bytes: 0 is no limit"},
		{"[jaeger]\nheld_bytes = \"1MiB\"\n", "jaeger.held_bytes"},
		{"[runtime.runc.jaeger]\nlisten = \"127.0.0.1:1\"\n", "[runtime.runc]: jaeger: the host has its endpoint once"},
		{"[runtime.runc]\nshimm = \"x\"\n", `unknown key "runtime.runc.shimm"`},
		{"[runtime.runc.export]\nendpoint = \"http://127.0.0.1:1\"\n", "[runtime.runc]: export: it differs"},
	} {
		// A mistake shows whichever runtime the configuration is read for.
		for _, inner := range []string{"", "runc", "other"} {
			cfg, err := Load(inner, env(PathEnv, write(t, tt.text)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q: error %v, want %q in it", tt.text, err, tt.want)
			}
			if !reflect.DeepEqual(cfg, Default()) {
				t.Errorf("%q: a broken file leaves something in the configuration: %+v", tt.text, cfg)
			}
		}
	}
}

func TestARuntimeWithItsOwnJournalExportsElsewhere(t *testing.T) {
	cfg, err := Parse([]byte("[runtime.runc.export]\nendpoint = \"http://127.0.0.1:1\"\n[runtime.runc.journal]\ndir = \"/var/lib/other\"\n"), "runc")
	if err != nil || cfg.Export.Endpoint != "http://127.0.0.1:1" {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestEnvironmentOverrides(t *testing.T) {
	path := write(t, "[export]\nendpoint = \"http://file:4318\"\nprotocol = \"grpc\"\n[trace]\npropagators = [\"b3\"]\n")
	cfg, err := Load("", env(PathEnv, path,
		"OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318/x",
		"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf",
		"OTEL_PROPAGATORS", "tracecontext, jaeger",
		"OTEL_TRACES_SAMPLER", "traceidratio", "OTEL_TRACES_SAMPLER_ARG", "0.25"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Export.Endpoint != "http://traces:4318/x" || !cfg.Export.FromEnv || cfg.Export.Protocol != "http/protobuf" {
		t.Errorf("export %+v", cfg.Export)
	}
	if strings.Join(cfg.Trace.Propagators, " ") != "tracecontext jaeger" || cfg.Trace.Sampler != "traceidratio" || cfg.Trace.SamplerArg != 0.25 {
		t.Errorf("trace %+v", cfg.Trace)
	}
	if cfg, _ := Load("", env(PathEnv, path, "OTEL_SDK_DISABLED", "true")); cfg.Trace.Mode != "off" {
		t.Errorf("mode %q with OTEL_SDK_DISABLED", cfg.Trace.Mode)
	}
	if cfg, _ := Load("", env(PathEnv, path, "OTEL_TRACES_EXPORTER", "none")); cfg.Export.Endpoint != "" {
		t.Errorf("endpoint %q with OTEL_TRACES_EXPORTER=none", cfg.Export.Endpoint)
	}
	for _, name := range []string{"OTEL_PROPAGATORS", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if _, err := Load("", env(PathEnv, path, name, "nonsense")); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=nonsense: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[trace]\nmode = \"static\"\n[runtime.runc.trace]\nslow = \"1s\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := Parse(text, "runc")
		if err == nil {
			err = cfg.validate()
		}
		if err != nil && err.Error() == "" {
			t.Error("an error without a text")
		}
	})
}
