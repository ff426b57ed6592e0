package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"

	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
)

func TestAnnotations(t *testing.T) {
	dir := t.TempDir()
	spec := `{"ociVersion":"1.2.0","process":{"env":["SECRET=hunter2"]},"annotations":{
		"io.kubernetes.cri.sandbox-id":"pod1","io.kubernetes.cri.sandbox-name":"web","io.kubernetes.cri.sandbox-namespace":"shop",
		"io.kubernetes.cri.container-name":"nginx","io.kubernetes.cri.image-name":"nginx:1"}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	notes, err := ReadAnnotations(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := notes.SandboxID("c1"); got != "pod1" {
		t.Errorf("sandbox %q", got)
	}
	shimtest.Want(t, notes.Pod(), "k8s.pod.name=web", "k8s.namespace.name=shop")
	shimtest.Want(t, notes.Container(), "container.name=nginx", "k8s.container.name=nginx", "container.image.name=nginx:1")
	shimtest.Want(t, Annotations{nerdctlName: "box"}.Container(), "container.name=box")
	const sha = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for image, want := range map[string]string{
		"nginx:1": "", "nginx@" + sha: sha, "r.example:5000/a/nginx:1@" + sha: sha,
		"nginx@sha256:short": "", "nginx@" + sha + "\n": "", "@": "", "nginx@:" + sha[7:]: "",
	} {
		if got := digest(image); got != want {
			t.Errorf("the digest of %q is %q, want %q", image, got, want)
		}
	}
	shimtest.Want(t, Annotations{criImageName: "nginx@" + sha}.Container(), "container.image.name=nginx@"+sha, "oci.manifest.digest="+sha)
	if got := (Annotations)(nil).SandboxID("c1"); got != "c1" {
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
			notes, err := ReadAnnotations(dir)
			if err != nil {
				t.Fatal(err)
			}
			shimtest.Want(t, notes.Pod(), tt.pod...)
			shimtest.Want(t, notes.Container(), tt.container...)
			engine := "containerd"
			if strings.Contains(tt.spec, "cri-o") && !strings.Contains(tt.spec, "kubernetes.cri.") {
				engine = "cri-o"
			}
			shimtest.Want(t, []attribute.KeyValue{notes.Known().engine()}, "container.runtime.name="+engine)
			if id, kind := notes.SandboxID("c1"), notes[CRIContainerType]; id != tt.sandbox || kind != tt.kind {
				t.Errorf("%s of the sandbox %s", kind, id)
			}
		})
	}
}
