package packages

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/traced"
)

// command is a line in a document's block for the shell, without its comment.
type command struct{ document, line string }

// commands returns all commands of all documents: the quick starts first, as people read
// them.
func commands(t *testing.T) (all []command) {
	t.Helper()
	documents := []string{"docs/quickstart.md", "README.md"}
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/*.md"} {
		found, err := filepath.Glob(filepath.Join(traced.Root(), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			name, err := filepath.Rel(traced.Root(), path)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(documents, name) {
				documents = append(documents, name)
			}
		}
	}
	for _, name := range documents {
		text, err := os.ReadFile(filepath.Join(traced.Root(), name))
		if err != nil {
			t.Fatal(err)
		}
		shell := false
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "```") {
				shell = line == "```sh"
				continue
			}
			line, _, _ = strings.Cut(line, " #")
			if line = strings.TrimSpace(line); shell && line != "" {
				all = append(all, command{name, line})
			}
		}
	}
	return all
}

// rule is how TestDocuments runs a command.
type rule struct {
	// elsewhere says why it does not run it.
	elsewhere string
	// before and after are scripts around it; instead stands for a command without an end.
	before, instead, after string
	// says are parts of what it prints.
	says []string
}

const (
	// withoutPods removes all pods, and waits until their relays have ended.
	withoutPods = `
crictl rmp --force --all >&2 || true
while ls /run/shimtrace/s/*.sock >/dev/null 2>&1; do sleep 0.1; done
`
	// withKata puts there what shimtrace looks for of Kata.
	withKata = `
mkdir -p /opt/kata/share/defaults/kata-containers
printf '[hypervisor.clh]\npath = "/bin/true"\n[agent.kata]\n[runtime]\n' >/opt/kata/share/defaults/kata-containers/configuration.toml
printf '#!/bin/sh\n' >/usr/bin/containerd-shim-kata-v2
chmod 755 /usr/bin/containerd-shim-kata-v2
`
	withoutKata = withoutPods + `
shimtrace install --uninstall --restart
rm -rf /opt/kata /usr/bin/containerd-shim-kata-v2
shimtrace install --restart
`
	onDemand = withoutPods + `
shimtrace install --restart
printf '[trace]\nmode = "dynamic"\n' >/etc/shimtrace/config.toml
sed s/web/web-0/ pod.json >/tmp/pod.json
crictl runp --runtime runc-traced /tmp/pod.json
`
	// watch looks at the first picture.
	watch = `
shimtrace status --watch >/tmp/watch &
until [ -s /tmp/watch ]; do kill -0 $!; sleep 0.1; done
kill $!
wait $! || true
`
	forward = `
shimtrace forward --all --otlp-endpoint http://127.0.0.1:4318 2>/tmp/forward &
until grep -q 'listening for agents' /tmp/forward; do kill -0 $!; sleep 0.1; done
kill $!
wait $!
`
)

// recorded waits until a sandbox is in the journal, where relays write a moment later.
func recorded(name string) string {
	return "until shimtrace show " + name + " >/dev/null 2>&1; do sleep 0.1; done"
}

// install is the documents' first command.
const install = "apt install ./shimtrace_*_amd64.deb"

// rules are for the commands for which more is to be said than that they run, and that
// their exit code is 0.
var rules = map[string]rule{
	"make build": {elsewhere: "what tests run is built by it"},
	"make demo":  {elsewhere: "integration/demo runs it"},
	"make lint":  {elsewhere: "CI runs it"},
	"make test":  {elsewhere: "CI runs it, and this test in it"},
	"ctr image pull docker.io/library/alpine:latest":                                       {elsewhere: "needs a registry"},
	"crictl runp --runtime kata-traced pod.json":                                           {elsewhere: "needs Kata; integration/vmshim runs pods in VMs"},
	"helm install shimtrace deploy/chart/shimtrace -n shimtrace --create-namespace --wait": {elsewhere: "needs a cluster; deploy renders the chart, TestNodeInstaller runs its installer"},
	"helm test shimtrace -n shimtrace --logs":                                              {elsewhere: "needs a cluster"},
	"kubectl shimtrace show default/web-0":                                                 {elsewhere: "needs a cluster; deploy runs the plugin with a kubectl of its own"},

	"install deploy/kubectl-shimtrace /usr/local/bin/":              {after: "rm /usr/local/bin/kubectl-shimtrace"},
	"shimtrace show first":                                          {before: recorded("first")},
	"bin/shimtrace install --dry-run":                               {says: []string{"would copy   /usr/local/bin/shimtrace"}},
	"shimtrace show hello":                                          {before: recorded("hello"), says: []string{"sandbox hello", "Task/Create"}},
	"shimtrace install --restart":                                   {says: []string{"containerd has been restarted, and its CRI has loaded: ", "runc-traced"}},
	"shimtrace show default/web":                                    {before: recorded("default/web"), says: []string{"pod default/web", "Task/Create"}},
	"shimtrace explain default/web":                                 {says: []string{"critical path"}},
	"shimtrace install --kata --restart":                            {before: withKata, says: []string{"kata-traced"}},
	"shimtrace install --kata":                                      {before: withKata},
	"shimtrace install --uninstall --restart":                       {before: withoutPods, after: "! ls /etc/containerd/conf.d/* /usr/local/bin/containerd-shim-*"},
	"shimtrace doctor":                                              {before: withoutKata, says: []string{"handler runc-traced is traced"}},
	"shimtrace status":                                              {before: onDemand, says: []string{"default/web-0"}},
	"shimtrace status --watch":                                      {instead: watch},
	"shimtrace off all":                                             {says: []string{"default/web-0"}},
	"shimtrace upgrade --dry-run":                                   {before: withoutPods + "crictl runp --runtime runc-traced pod.json"},
	"shimtrace upgrade":                                             {after: withoutPods},
	"shimtrace forward --all --otlp-endpoint http://127.0.0.1:4318": {before: withoutPods, instead: forward},
	"ln -s /usr/bin/containerd-shim-traced-v2 /usr/local/bin/containerd-shim-runc-v2": {before: withoutPods + "rm /etc/shimtrace/config.toml"},
	"systemctl restart containerd": {after: `
ctr run --rm docker.io/library/alpine:latest every true
` + recorded("every") + `
rm /usr/local/bin/containerd-shim-runc-v2
systemctl restart containerd
`},
}
