package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

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
	for cmd, says := range map[string]string{"list": "", "status": "no traced sandbox runs"} {
		for _, want := range []string{"line 6, column 8: trace.slow", "line 8, column 8: runtime.kata.trace.mode", "environment OTEL_PROPAGATORS"} {
			command(t, env, cmd).want(t, console.Nothing, says, want)
		}
		command(t, env, cmd).want(t, console.Nothing, says, dir)
	}
	command(t, env, "forward").want(t, console.Failure, "", "line 6, column 8: trace.slow")
	command(t, env, "ship").want(t, console.Failure, "", "nowhere to ship to")
}
