package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
)

const configurationDoc = "../../docs/configuration.md"

func readDoc(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(configurationDoc)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDocumentedExamples parses every example of the document.
func TestDocumentedExamples(t *testing.T) {
	examples := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(readDoc(t), -1)
	if len(examples) < 8 {
		t.Fatalf("found %d examples in %s", len(examples), configurationDoc)
	}
	for _, e := range examples {
		for _, inner := range []string{"", "kata-qemu", "runc"} {
			if _, err := config.Parse([]byte(e[1]), inner); err != nil {
				t.Errorf("for the inner shim %q: %v in the example:\n%s", inner, err, e[1])
			}
		}
	}
	last := []byte(examples[len(examples)-1][1])
	kata, err := config.Parse(last, "kata-qemu")
	if err != nil {
		t.Fatal(err)
	}
	if kata.Trace.Sampler != "parentbased_always_on" || kata.Trace.SamplerArg != 0.01 || kata.Shim == "" || kata.Resource["vm"] != "qemu" {
		t.Errorf("the runtime section does not have the documented effect: %+v", kata)
	}
}

// TestDocumentedKeys: the tables of the sections list every key, with its default, and
// no other.
func TestDocumentedKeys(t *testing.T) {
	doc := readDoc(t)
	defaults := reflect.ValueOf(config.Default())
	checkSections(t, doc, "", defaults)
}

// checkSections compares each table in value, whose key is prefix, with its section.
func checkSections(t *testing.T, doc, prefix string, value reflect.Value) {
	t.Helper()
	for i := range value.NumField() {
		name, field := value.Type().Field(i).Tag.Get("toml"), value.Field(i)
		if name == "-" || prefix != "" && field.Kind() != reflect.Struct {
			continue
		}
		section := prefix + name
		_, body, ok := strings.Cut(doc, "\n## `["+section+"]`")
		if !ok {
			t.Errorf("the section [%s] is not documented", section)
			continue
		}
		body, _, _ = strings.Cut(body, "\n## ")
		if field.Kind() == reflect.Struct {
			checkTable(t, section, body, field)
			checkSections(t, doc, section+".", field)
		}
	}
}

func checkTable(t *testing.T, section, body string, value reflect.Value) {
	t.Helper()
	rows := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(body, -1) {
		rows[m[1]] = m[2]
	}
	for i := range value.NumField() {
		key := value.Type().Field(i).Tag.Get("toml")
		if key == "-" || value.Field(i).Kind() == reflect.Struct {
			continue
		}
		row, ok := rows[key]
		delete(rows, key)
		if want := shownDefault(t, value.Field(i)); !ok || !strings.HasSuffix(row, want) {
			t.Errorf("%s.%s: the document has %q, which should end in %q", section, key, row, want)
		}
	}
	for key := range rows {
		t.Errorf("%s.%s is documented and does not exist", section, key)
	}
}

// shownDefault returns a default as the document shows it.
func shownDefault(t *testing.T, v reflect.Value) string {
	t.Helper()
	switch value := v.Interface().(type) {
	case config.Duration:
		return fmt.Sprintf("`%q`", time.Duration(value).String())
	case config.Bytes:
		if value%(1<<20) != 0 {
			return fmt.Sprintf("`\"%dKiB\"`", value>>10)
		}
		return fmt.Sprintf("`\"%dMiB\"`", value>>20)
	case map[string]string:
		return "empty"
	case string:
		if value == "" {
			return "none"
		}
	case []uint32:
		return "none"
	case []string:
		if value == nil {
			return "as below"
		}
		if len(value) == 0 {
			return "none"
		}
		return "`[\"" + strings.Join(value, "\", \"") + "\"]`"
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		t.Fatal(err)
	}
	return "`" + string(text) + "`"
}

// TestMistakesAreSaid: commands report mistakes in the configuration and the
// environment and go on; long-running ones started by a person end instead.
func TestMistakesAreSaid(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("[journal]\ndir = %q\n[relay]\nstate_dir = %q\n[trace]\nslow = 5\n[runtime.kata.trace]\nmode = 7\n", filepath.Join(dir, "journal"), filepath.Join(dir, "state"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"SHIMTRACE_CONFIG": file, "OTEL_PROPAGATORS": "xray"}
	for _, args := range [][]string{{"list"}, {"status"}} {
		for _, want := range []string{"line 6, column 8: trace.slow", "line 8, column 8: runtime.kata.trace.mode", "environment OTEL_PROPAGATORS"} {
			command(t, env, args...).want(t, console.Nothing, "", want)
		}
		command(t, env, args...).want(t, console.Nothing, "", dir)
	}
	command(t, env, "forward").want(t, console.Failure, "", "line 6, column 8: trace.slow")
	command(t, env, "ship").want(t, console.Failure, "", "nowhere to ship to")
}
