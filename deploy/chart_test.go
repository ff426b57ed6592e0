package deploy

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"sigs.k8s.io/yaml"
)

// render renders the chart with values, as helm template does, and returns its documents.
func render(t *testing.T, values string) ([]string, error) {
	t.Helper()
	c, err := loader.Load("chart/shimtrace")
	if err != nil {
		t.Fatal(err)
	}
	set, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	release := chartutil.ReleaseOptions{Name: "shimtrace", Namespace: "shimtrace", IsInstall: true}
	all, err := chartutil.ToRenderValues(c, set, release, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Engine{Strict: true}.Render(c, all)
	if err != nil {
		return nil, err
	}
	var documents []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for _, d := range strings.Split("\n"+files[name], "\n---\n") {
			if d = strings.TrimSpace(d); d != "" && strings.Contains(d, "\nkind: ") {
				documents = append(documents, d+"\n")
			}
		}
	}
	return documents, nil
}

// decode reads a document into Kubernetes' own type, which must have each of its fields.
func decode(t *testing.T, document string) any {
	t.Helper()
	var kind struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
		t.Fatalf("%v:\n%s", err, document)
	}
	object := map[string]any{
		"v1/ConfigMap": new(corev1.ConfigMap), "v1/Service": new(corev1.Service),
		"apps/v1/DaemonSet": new(appsv1.DaemonSet), "apps/v1/Deployment": new(appsv1.Deployment),
		"batch/v1/Job": new(batchv1.Job), "node.k8s.io/v1/RuntimeClass": new(nodev1.RuntimeClass),
	}[kind.APIVersion+"/"+kind.Kind]
	if object == nil {
		t.Fatalf("there is no %s/%s:\n%s", kind.APIVersion, kind.Kind, document)
	}
	if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
		t.Errorf("%s: %v:\n%s", kind.Kind, err, document)
	}
	return object
}

var cases = map[string]string{
	"default":   "",
	"k3s":       "distribution: k3s\n",
	"rke2":      "distribution: rke2\nnode: {shims: [runc, kata-qemu], seLinuxOptions: {type: spc_t}}\n",
	"k0s":       "distribution: k0s\nnode: {restart: false}\n",
	"microk8s":  "distribution: microk8s\nimagePullSecrets: [{name: x}]\n",
	"kata":      "kata: {enabled: true}\nruntimeClasses: [{name: kata-traced, handler: kata-traced, overhead: {podFixed: {memory: 160Mi, cpu: 250m}}, scheduling: {nodeSelector: {kata: 'true'}}}]\n",
	"links":     "node: {containerd: false, restart: false}\n",
	"uninstall": "mode: uninstall\n",
	"collector": "collector: {enabled: true, endpoint: 'tempo:4317', tailSampling: {slow: 750ms}}\nconfig: |\n  [trace]\n  mode = \"dynamic\"\n",
}

// TestChart: for all kinds of values the documents are what Kubernetes knows, and give
// nobody more than it needs.
func TestChart(t *testing.T) {
	for name, values := range cases {
		t.Run(name, func(t *testing.T) {
			documents, err := render(t, values)
			if err != nil {
				t.Fatal(err)
			}
			if len(documents) < 4 {
				t.Errorf("only %d documents", len(documents))
			}
			for _, d := range documents {
				switch object := decode(t, d).(type) {
				case *appsv1.DaemonSet:
					modest(t, object.Name, object.Spec.Template.Spec)
					chosen(t, object.Spec.Selector.MatchLabels, object.Spec.Template.Labels)
				case *appsv1.Deployment:
					modest(t, object.Name, object.Spec.Template.Spec)
					chosen(t, object.Spec.Selector.MatchLabels, object.Spec.Template.Labels)
				case *batchv1.Job:
					modest(t, object.Name, object.Spec.Template.Spec)
				}
			}
		})
	}
}

// modest checks that a pod has no rights in the cluster, no privileges, and of the node
// only directories.
func modest(t *testing.T, name string, pod corev1.PodSpec) {
	t.Helper()
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken || pod.ServiceAccountName != "" {
		t.Errorf("%s has a token of the cluster", name)
	}
	if pod.HostPID || pod.HostIPC || pod.HostNetwork && name != "shimtrace-agent" {
		t.Errorf("%s is in the node's namespaces", name)
	}
	for _, c := range append(slices.Clone(pod.InitContainers), pod.Containers...) {
		s := c.SecurityContext
		if s == nil || s.Privileged != nil && *s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.Capabilities == nil || len(s.Capabilities.Add) > 0 ||
			!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("%s, container %s: %+v", name, c.Name, s)
		}
		for _, m := range c.VolumeMounts {
			if !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
				t.Errorf("%s, container %s: there is no volume %s", name, c.Name, m.Name)
			}
		}
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil && slices.Contains([]string{"/", "/etc", "/var", "/run", "/usr", "/proc", "/var/lib/kubelet"}, v.HostPath.Path) {
			t.Errorf("%s has the node's %s", name, v.HostPath.Path)
		}
	}
}

func chosen(t *testing.T, selector, labels map[string]string) {
	t.Helper()
	for k, v := range selector {
		if labels[k] != v {
			t.Errorf("the selector wants %s=%s, the pods have %q", k, v, labels[k])
		}
	}
}

// TestWrongValues: a mistake is said when the chart is rendered, not on the nodes.
func TestWrongValues(t *testing.T) {
	for values, want := range map[string]string{
		"distribution: gke\n":          "is none of k8s, k3s",
		"mode: remove\n":               "neither install nor uninstall",
		"collector: {enabled: true}\n": "collector.endpoint",
		"collector: {enabled: true, endpoint: 'x:1', tailSampling: {slow: soon}}\n": "is no time",
	} {
		if _, err := render(t, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", values, err, want)
		}
	}
}

// TestManifests: the plain manifests are the chart's. SHIMTRACE_WRITE_MANIFESTS=1 writes
// them.
func TestManifests(t *testing.T) {
	for file, values := range map[string]string{"install.yaml": "", "uninstall.yaml": "mode: uninstall\n"} {
		documents, err := render(t, values)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "# The chart with mode %s, and its defaults otherwise, for kubectl apply -n shimtrace -f.\n", strings.TrimSuffix(file, ".yaml"))
		for _, d := range documents {
			if !strings.Contains(d, "helm.sh/hook") {
				b.WriteString("---\n" + strings.ReplaceAll(d, "managed-by: Helm", "managed-by: kubectl"))
			}
		}
		path := "manifests/" + file
		if os.Getenv("SHIMTRACE_WRITE_MANIFESTS") != "" {
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, b.Bytes()) {
			t.Errorf("%s is not what the chart says (%v): SHIMTRACE_WRITE_MANIFESTS=1 go -C deploy test", path, err)
		}
	}
}

// TestCollectorConfigurations: the Collectors' configurations are YAML. With a directory in
// SHIMTRACE_RENDER they are written there, with the values in SHIMTRACE_VALUES, for the
// tests that run them.
func TestCollectorConfigurations(t *testing.T) {
	values, found := os.Getenv("SHIMTRACE_VALUES"), 0
	if values == "" {
		values = cases["collector"]
	}
	documents, err := render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range documents {
		m, ok := decode(t, d).(*corev1.ConfigMap)
		if !ok {
			continue
		}
		for name, text := range m.Data {
			if !strings.HasSuffix(name, ".yaml") {
				continue
			}
			found++
			var all map[string]any
			if err := yaml.Unmarshal([]byte(text), &all); err != nil || all["service"] == nil {
				t.Errorf("%s: %v:\n%s", name, err, text)
			}
			if dir := os.Getenv("SHIMTRACE_RENDER"); dir != "" {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if found != 2 {
		t.Errorf("%d configurations", found)
	}
}
