package config

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// BenchmarkLoad reads the document's examples in one file, as each start of a container
// reads its configuration.
func BenchmarkLoad(b *testing.B) {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		b.Fatal(err)
	}
	var text strings.Builder
	for _, m := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		text.WriteString(m[1])
	}
	path := b.TempDir() + "/config.toml"
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	getenv := env(PathEnv, path)
	b.ReportAllocs()
	for b.Loop() {
		if cfg, r := Load("kata-qemu", getenv); cfg.Shim == "" {
			b.Fatal(r.Err())
		}
	}
}
