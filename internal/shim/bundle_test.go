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

// TestCRIOsAnnotations: pods of CRI-O have their names, with and without a kubelet. The
// annotations are of real ones.
func TestCRIOsAnnotations(t *testing.T) {
	for _, tt := range []struct {
		name, spec     string
		pod, container []string
		sandbox, kind  string
	}{
		{"sandbox", `"io.container.manager":"cri-o","io.kubernetes.cri-o.ContainerType":"sandbox","io.kubernetes.cri-o.SandboxID":"134b58","io.kubernetes.cri-o.ContainerID":"134b58",
			"io.kubernetes.cri-o.KubeName":"segfaulter","io.kubernetes.cri-o.Namespace":"default","io.kubernetes.cri-o.Name":"k8s_segfaulter_default_aaaa2b4a_0",
			"io.kubernetes.pod.namespace":"default","io.kubernetes.pod.name":"segfaulter","io.kubernetes.pod.uid":"aaaa2b4a","io.kubernetes.container.name":"POD"`,
			[]string{"k8s.pod.name=segfaulter", "k8s.namespace.name=default", "k8s.pod.uid=aaaa2b4a"}, nil, "134b58", "sandbox"},
		{"container", `"io.container.manager":"cri-o","io.kubernetes.container.name":"coredns","io.kubernetes.cri-o.ContainerID":"438e2b","io.kubernetes.cri-o.ContainerType":"container",
			"io.kubernetes.cri-o.ImageName":"k8s.gcr.io/coredns/coredns:v1.8.6","io.kubernetes.cri-o.SandboxID":"500027","io.kubernetes.pod.name":"coredns-6d4b75cb6d-4mtdm",
			"io.kubernetes.pod.namespace":"kube-system","io.kubernetes.pod.uid":"5b5e07db"`,
			[]string{"k8s.pod.name=coredns-6d4b75cb6d-4mtdm", "k8s.namespace.name=kube-system", "k8s.pod.uid=5b5e07db"},
			[]string{"container.name=coredns", "k8s.container.name=coredns", "container.image.name=k8s.gcr.io/coredns/coredns:v1.8.6"}, "500027", "container"},
		{"crictl's sandbox", `"io.kubernetes.cri-o.ContainerType":"sandbox","io.kubernetes.cri-o.SandboxID":"p1","io.kubernetes.cri-o.KubeName":"podsandbox1","io.kubernetes.cri-o.Namespace":"redhat.test.crio","io.kubernetes.cri-o.Metadata":"{\"name\":\"podsandbox1\"}"`,
			[]string{"k8s.pod.name=podsandbox1", "k8s.namespace.name=redhat.test.crio"}, nil, "p1", "sandbox"},
		{"crictl's container", `"io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.cri-o.SandboxID":"p1","io.kubernetes.cri-o.Metadata":"{\"name\":\"podsandbox1-redis\"}","io.kubernetes.cri-o.ImageName":"docker.io/library/redis:alpine"`,
			nil, []string{"container.name=podsandbox1-redis", "k8s.container.name=podsandbox1-redis", "container.image.name=docker.io/library/redis:alpine"}, "p1", "container"},
		{"values that are no strings", `"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-id":"pod1","io.kubernetes.cri.sandbox-name":"web","n":5,"b":true,"x":null,"l":["a"],"o":{"a":"b"},"io.kubernetes.cri.sandbox-uid":7`,
			[]string{"k8s.pod.name=web"}, nil, "pod1", "sandbox"},
		{"containerd's beside", `"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-id":"pod1","io.kubernetes.cri-o.ContainerType":"sandbox","io.kubernetes.cri-o.SandboxID":"another","io.kubernetes.pod.name":"another"`,
			nil, nil, "pod1", "container"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"annotations":{`+tt.spec+`}}`), 0o600); err != nil {
				t.Fatal(err)
			}
			notes, err := readAnnotations(dir)
			if err != nil {
				t.Fatal(err)
			}
			want(t, notes.pod(), tt.pod...)
			want(t, notes.container(), tt.container...)
			if id, kind := notes.sandboxID("c1"), notes[criContainerType]; id != tt.sandbox || kind != tt.kind {
				t.Errorf("%s of the sandbox %s", kind, id)
			}
		})
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
