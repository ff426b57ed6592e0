package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/traced"
)

func TestMain(m *testing.M) {
	code := m.Run()
	traced.Clean()
	os.Exit(code)
}

// TestDemo: who has only cloned this sees waterfalls, of a machine's own parts or of
// Debian's, with neither nerdctl nor crictl.
func TestDemo(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("containers need root")
	}
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		"building shimtrace ...", "removing everything ...",
		"$ shimtrace show hello", "sandbox start", "└ inner delete",
		"pod default/web", "Task/Create app", "no-such-program",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &out)
		}
	}
}
