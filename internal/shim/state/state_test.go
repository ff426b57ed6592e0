package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
)

func TestStateSurvivesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true})
	st := State{Version: Version, Trace: NewTraceContext(sc), Started: time.Now().Round(0), Sandbox: "s",
		Pending: []Timing{{Name: "shim start", Children: []Timing{{Name: "inner start", Error: "boom"}}}}}
	if err := st.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Trace.SpanContext().Equal(sc) || !got.Started.Equal(st.Started) || got.Pending[0].Children[0].Error != "boom" {
		t.Errorf("got %+v", got)
	}
	for name, text := range map[string]string{
		"not JSON":      "x",
		"other version": strings.Replace(mustRead(t, path), `"version":1`, `"version":2`, 1),
		"no trace":      `{"version":1}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(link); err == nil {
		t.Error("followed a link")
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
