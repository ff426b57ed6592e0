package state

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// maxSpec bounds a bundle's config.json, in bytes.
const maxSpec = 16 << 20

// Annotations are those of the OCI spec that say what a container is for: CRI's
// (containerd internal/cri/annotations, under whose names CRI-O's are too) and nerdctl's labels
// (pkg/labels), which it writes into the spec too, the image not among them.
type Annotations map[string]string

const (
	CRIContainerType    = "io.kubernetes.cri.container-type" // "sandbox", "container"
	criSandboxID        = "io.kubernetes.cri.sandbox-id"
	CRISandboxName      = "io.kubernetes.cri.sandbox-name"
	CRISandboxNamespace = "io.kubernetes.cri.sandbox-namespace"
	CRISandboxUID       = "io.kubernetes.cri.sandbox-uid"
	criContainerName    = "io.kubernetes.cri.container-name"
	criImageName        = "io.kubernetes.cri.image-name"
	nerdctlName         = "nerdctl/name"
	crioContainerType   = "io.kubernetes.cri-o.ContainerType"
)

// Known returns the annotations that spans are made of.
func (a Annotations) Known() Annotations {
	k := make(Annotations)
	for _, key := range []string{criSandboxID, CRISandboxName, CRISandboxNamespace, CRISandboxUID, criContainerName, criImageName, nerdctlName, crioContainerType} {
		if v := a[key]; v != "" {
			k[key] = v
		}
	}
	return k
}

// ReadAnnotations reads those annotations from the bundle's OCI spec.
func ReadAnnotations(bundle string) (Annotations, error) {
	f, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSpec))
	if err != nil {
		return nil, err
	}
	var spec struct {
		Annotations map[string]json.RawMessage `json:"annotations"`
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	notes := make(Annotations, len(spec.Annotations))
	for key, value := range spec.Annotations {
		var s string
		if json.Unmarshal(value, &s) == nil { // OCI has strings; others say nothing to us
			notes[key] = s
		}
	}
	notes.adoptCRIO()
	return notes, nil
}

// crio has what CRI-O calls containerd's annotations, the best first (pkg/annotations
// of CRI-O 1.26 to 1.33), beside the kubelet's labels, which it makes annotations of.
var crio = map[string][]string{
	CRIContainerType:    {crioContainerType},
	criSandboxID:        {"io.kubernetes.cri-o.SandboxID"},
	CRISandboxName:      {"io.kubernetes.pod.name", "io.kubernetes.cri-o.KubeName"},
	CRISandboxNamespace: {"io.kubernetes.pod.namespace", "io.kubernetes.cri-o.Namespace"},
	CRISandboxUID:       {"io.kubernetes.pod.uid"},
	criContainerName:    {"io.kubernetes.container.name"},
	criImageName:        {"io.kubernetes.cri-o.ImageName"},
}

// adoptCRIO gives CRI-O's annotations containerd's names.
func (a Annotations) adoptCRIO() {
	if a[crioContainerType] == "" || a[CRIContainerType] != "" {
		delete(a, crioContainerType) // somebody else's
		return
	}
	for name, theirs := range crio {
		for _, key := range theirs {
			if a[name] == "" {
				a[name] = a[key]
			}
		}
	}
	if a[CRIContainerType] == "sandbox" {
		delete(a, criContainerName) // the kubelet calls it POD
		return
	}
	// Without a kubelet the container has its name in its metadata only.
	var meta struct {
		Name string `json:"name"`
	}
	if a[criContainerName] == "" && json.Unmarshal([]byte(a["io.kubernetes.cri-o.Metadata"]), &meta) == nil {
		a[criContainerName] = meta.Name
	}
}

// SandboxID returns the id of the sandbox that the container with the id is in.
func (a Annotations) SandboxID(id string) string {
	if s := a[criSandboxID]; s != "" {
		return s
	}
	return id
}

// Pod returns the resource attributes of the pod.
func (a Annotations) Pod() []attribute.KeyValue {
	return present(
		semconv.K8SPodName(a[CRISandboxName]),
		semconv.K8SNamespaceName(a[CRISandboxNamespace]),
		semconv.K8SPodUID(a[CRISandboxUID]),
	)
}

// engine returns the resource attribute that says who runs the container: CRI-O writes its own
// annotations, and containerd starts all other shims.
func (a Annotations) engine() attribute.KeyValue {
	if a[crioContainerType] != "" {
		return semconv.ContainerRuntimeName("cri-o")
	}
	return semconv.ContainerRuntimeName("containerd")
}

// digest returns the digest of an image, if its name has it: "busybox@sha256:…".
func digest(image string) string {
	_, d, _ := strings.Cut(image, "@")
	algorithm, hex, ok := strings.Cut(d, ":")
	if !ok || algorithm == "" || len(hex) < 32 || strings.Trim(hex, "0123456789abcdef") != "" {
		return ""
	}
	return d
}

// Container returns the span attributes of the container.
func (a Annotations) Container() []attribute.KeyValue {
	name := a[criContainerName]
	return present(
		semconv.ContainerName(cmp.Or(name, a[nerdctlName])),
		semconv.K8SContainerName(name),
		semconv.ContainerImageName(a[criImageName]),
		semconv.OCIManifestDigest(digest(a[criImageName])),
	)
}

// present returns the attributes that have a value.
func present(attrs ...attribute.KeyValue) []attribute.KeyValue {
	kept := attrs[:0]
	for _, a := range attrs {
		if v := a.Value.AsString(); v != "" {
			kept = append(kept, attribute.String(string(a.Key), strings.ToValidUTF8(v, "\uFFFD")))
		}
	}
	return kept
}

// Annotations returns what the state says of the pod, as annotations.
func (st *State) Annotations() Annotations {
	return Annotations{CRISandboxName: st.Pod, CRISandboxNamespace: st.PodNamespace, CRISandboxUID: st.PodUID}
}
