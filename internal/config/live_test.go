package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestLive: a relay follows the keys that it can, and docs/configuration.md names the same.
func TestLive(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, row, _ := strings.Cut(string(text), "\n| relays | ")
	row, _, _ = strings.Cut(row, "\n")
	for key := range strings.SplitSeq("trace agent jaeger log", " ") {
		if !strings.Contains(row, "`["+key+"]`") {
			t.Errorf("docs/configuration.md: %q does not name [%s]", row, key)
		}
	}
	if got, want := strings.Count(row, "`")/2-4, len(live); got != want {
		t.Errorf("docs/configuration.md names %d keys, %d are followed", got, want)
	}
	began := Default()
	for _, key := range live {
		now := Default()
		section, name, _ := strings.Cut(key, ".")
		if !strings.Contains(row, "`"+name+"`") {
			t.Errorf("docs/configuration.md does not name %s", key)
		}
		s, _ := fieldOf(reflect.ValueOf(&now).Elem(), section)
		f, ok := fieldOf(s, name)
		if !ok {
			t.Fatalf("there is no %s", key)
		}
		switch f.Kind() {
		case reflect.String:
			f.SetString("other")
		case reflect.Float64:
			f.SetFloat(0.5)
		case reflect.Int64:
			f.SetInt(5)
		case reflect.Slice:
			f.Set(reflect.ValueOf([]string{"other"}))
		}
		if changed, rest := began.Live(now); !reflect.DeepEqual(changed, now) || rest != nil {
			t.Errorf("%s: %+v, the rest %q", key, changed, rest)
		}
	}
	other := Default()
	other.Journal.MaxBytes, other.Export.Endpoint, other.Resource, other.Shim, other.Agent.Limits.SpanBurst = 1, "x", map[string]string{"a": "b"}, "x", 7
	changed, rest := began.Live(other)
	if want := []string{"agent.limits.span_burst", "journal.max_bytes", "resource", "shim"}; !slices.Equal(rest, want) || !reflect.DeepEqual(changed, began) {
		t.Errorf("the rest is %q, want %q", rest, want)
	}
}

// TestSource: a configuration is read again when its file has changed, and that the file is
// gone is a mistake.
func TestSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("trace.mode = 'dynamic'")
	s := NewSource("x", func(name string) string { return map[string]string{PathEnv: path}[name] })
	if _, _, changed := s.Again(false); changed || !slices.Equal(s.Files(), []string{path}) {
		t.Errorf("nothing has changed, of %q", s.Files())
	}
	if cfg, _, changed := s.Again(true); !changed || cfg.Trace.Mode != "dynamic" {
		t.Error("somebody has told of a change")
	}
	write("trace.mode = 'static' # longer")
	if cfg, r, changed := s.Again(false); !changed || cfg.Trace.Mode != "static" || r.Err() != nil {
		t.Errorf("%+v, %v, %v", cfg.Trace, r, changed)
	}
	write("\ntrace.mode = 'x'")
	_, r, _ := s.Again(false)
	if line, column := Where(r.Err()); line != 2 || column != 14 {
		t.Errorf("line %d, column %d: %v", line, column, r.Err())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, r, changed := s.Again(false); !changed || r.Err() == nil {
		t.Errorf("the file is gone: %v", r)
	}
	if _, _, changed := s.Again(false); changed {
		t.Error("it is gone again")
	}
}
