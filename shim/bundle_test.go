package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

func TestAnnotations(t *testing.T) {
	dir := t.TempDir()
	spec := `{"ociVersion":"1.2.0","process":{"env":["SECRET=hunter2"]},"annotations":{
		"io.kubernetes.cri.sandbox-id":"pod1","io.kubernetes.cri.sandbox-name":"web","io.kubernetes.cri.sandbox-namespace":"shop",
		"io.kubernetes.cri.container-name":"nginx","io.kubernetes.cri.image-name":"nginx:1"}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	notes, err := readAnnotations(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := notes.sandboxID("c1"); got != "pod1" {
		t.Errorf("sandbox %q", got)
	}
	want(t, notes.pod(), "k8s.pod.name=web", "k8s.namespace.name=shop")
	want(t, notes.container(), "container.name=nginx", "k8s.container.name=nginx", "container.image.name=nginx:1")
	want(t, annotations{nerdctlName: "box"}.container(), "container.name=box")
	if got := (annotations)(nil).sandboxID("c1"); got != "c1" {
		t.Errorf("sandbox of a container on its own: %q", got)
	}
}

func want(t *testing.T, attrs []attribute.KeyValue, want ...string) {
	t.Helper()
	var got []string
	for _, a := range attrs {
		got = append(got, string(a.Key)+"="+a.Value.String())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestReplaceAddress(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "address")
	if err := replaceAddress(dir, relayAddr); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("an address file was made where the shim wrote none")
	}
	if err := os.WriteFile(path, []byte(innerAddr), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replaceAddress(dir, relayAddr); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(path)
	st, _ := os.Stat(path)
	if string(got) != relayAddr || st.Mode().Perm() != 0o644 {
		t.Errorf("%q, mode %v", got, st.Mode())
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStateSurvivesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), stateFile)
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true})
	st := state{Version: stateVersion, Trace: newTraceContext(sc), Started: time.Now().Round(0), Sandbox: "s",
		Pending: []timing{{Name: "shim start", Children: []timing{{Name: "inner start", Error: "boom"}}}}}
	if err := st.write(path); err != nil {
		t.Fatal(err)
	}
	got, err := readState(path)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Trace.spanContext().Equal(sc) || !got.Started.Equal(st.Started) || got.Pending[0].Children[0].Error != "boom" {
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
		if _, err := readState(path); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := readState(link); err == nil {
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
