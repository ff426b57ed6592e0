package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// FuzzLoad: whatever the file and the environment contain, the configuration is valid,
// and the inner shim that the file names is found.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("[trace]\nmode = \"static\"\n"), []byte("[runtime.runc.trace]\nslow = \"1s\"\n"), "x")
	f.Add([]byte("[trace\n\"\"\"\n]"), []byte("runtime = 5\n[[runtime]]\nshim=3"), "host:4317")
	f.Add([]byte("runtime.x.y = [[[1],{a.b=2}]]\nruntime.x='''"), []byte("\xff\x00\r"), "a=b,%zz")
	f.Add([]byte("[export.headers]\na.b = 1\nexport = {}\n[export]\n"), []byte("'' = {'' = ''}"), "\"'none,otlp'\"")
	path := filepath.Join(f.TempDir(), "config.toml")
	const section = "\n[runtime.fuzzed]\nshim = \"/the/inner/shim\"\n"
	f.Fuzz(func(t *testing.T, before, after []byte, variable string) {
		text := string(before) + section + string(after)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, r := Load("fuzzed", func(name string) string {
			switch {
			case name == PathEnv:
				return path
			case strings.HasPrefix(name, "OTEL_"):
				return variable
			}
			return ""
		})
		if broken := cfg.violations(); len(broken) > 0 || checkEndpoint(cfg.Export.Endpoint) != nil {
			t.Fatalf("an invalid configuration: %+v", broken)
		}
		for _, err := range append(r.Mistakes, r.Ignored...) {
			if err.Error() == "" || strings.Contains(err.Error(), "cannot be read") {
				t.Fatalf("%q", err)
			}
		}
		// The section may be part of a string, or the key may be set before it.
		swallowed := strings.Contains(string(before), `"""`) || strings.Contains(string(before), "'''")
		if !swallowed && !strings.Contains(string(before), "fuzzed") && cfg.Shim != "/the/inner/shim" {
			t.Fatalf("shim %q; %v", cfg.Shim, r.Err())
		}
		// Text that is not TOML is a mistake. Comments may be in any encoding.
		if err := toml.Unmarshal([]byte(text), new(map[string]any)); err != nil && len(r.Mistakes) == 0 && !strings.Contains(text, "#") {
			t.Fatalf("TOML's own error is not among the mistakes: %v", err)
		}
	})
}
