package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// maxSpec bounds a bundle's config.json, in bytes.
const maxSpec = 16 << 20

// annotations are those of the OCI spec that say what a container is for: CRI's
// (containerd internal/cri/annotations, under whose names CRI-O's are too) and nerdctl's labels
// (pkg/labels), which it writes into the spec too, the image not among them.
type annotations map[string]string

const (
	criContainerType = "io.kubernetes.cri.container-type" // "sandbox", "container"
	criSandboxID     = "io.kubernetes.cri.sandbox-id"
	criSandboxName   = "io.kubernetes.cri.sandbox-name"
	criSandboxNS     = "io.kubernetes.cri.sandbox-namespace"
	criSandboxUID    = "io.kubernetes.cri.sandbox-uid"
	criContainerName = "io.kubernetes.cri.container-name"
	criImageName     = "io.kubernetes.cri.image-name"
	nerdctlName      = "nerdctl/name"
)

// known returns the annotations that spans are made of.
func (a annotations) known() annotations {
	k := make(annotations)
	for _, key := range []string{criSandboxID, criSandboxName, criSandboxNS, criSandboxUID, criContainerName, criImageName, nerdctlName} {
		if v := a[key]; v != "" {
			k[key] = v
		}
	}
	return k
}

// readAnnotations reads those annotations from the bundle's OCI spec.
func readAnnotations(bundle string) (annotations, error) {
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
	notes := make(annotations, len(spec.Annotations))
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
	criContainerType: {"io.kubernetes.cri-o.ContainerType"},
	criSandboxID:     {"io.kubernetes.cri-o.SandboxID"},
	criSandboxName:   {"io.kubernetes.pod.name", "io.kubernetes.cri-o.KubeName"},
	criSandboxNS:     {"io.kubernetes.pod.namespace", "io.kubernetes.cri-o.Namespace"},
	criSandboxUID:    {"io.kubernetes.pod.uid"},
	criContainerName: {"io.kubernetes.container.name"},
	criImageName:     {"io.kubernetes.cri-o.ImageName"},
}

// adoptCRIO gives CRI-O's annotations containerd's names.
func (a annotations) adoptCRIO() {
	if a["io.kubernetes.cri-o.ContainerType"] == "" || a[criContainerType] != "" {
		return
	}
	for name, theirs := range crio {
		for _, key := range theirs {
			if a[name] == "" {
				a[name] = a[key]
			}
		}
	}
	if a[criContainerType] == "sandbox" {
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

// sandboxID returns the id of the sandbox that the container with the id is in.
func (a annotations) sandboxID(id string) string {
	if s := a[criSandboxID]; s != "" {
		return s
	}
	return id
}

// pod returns the resource attributes of the pod.
func (a annotations) pod() []attribute.KeyValue {
	return present(
		semconv.K8SPodName(a[criSandboxName]),
		semconv.K8SNamespaceName(a[criSandboxNS]),
		semconv.K8SPodUID(a[criSandboxUID]),
	)
}

// container returns the span attributes of the container.
func (a annotations) container() []attribute.KeyValue {
	name := a[criContainerName]
	return present(
		semconv.ContainerName(firstOf(name, a[nerdctlName])),
		semconv.K8SContainerName(name),
		semconv.ContainerImageName(a[criImageName]),
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

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// replaceAddress puts the relay's address in the place of the inner shim's in the
// bundle's address file. Only some shims write one, and only then there is one:
// containerd 1.7 finds the shim by it after a restart.
func replaceAddress(bundle, relay string) error {
	path := filepath.Join(bundle, "address")
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("replace the shim's address: %w", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("replace the shim's address: %w", err)
	}
	if bytes.Equal(bytes.TrimSpace(old), []byte(relay)) {
		return nil
	}
	return replaceFile(path, []byte(relay), st.Mode().Perm())
}
