package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// plugin runs the plugin with a kubectl that knows one pod and one DaemonSet's pod.
func plugin(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	dir := t.TempDir()
	const kubectl = `#!/bin/sh
case "$*" in
"config view"*) printf team ;;
"get pod -n default web-0 "*) printf worker-1 ;;
"get pod -n team web-0 "*) printf worker-2 ;;
"get pod -n default pending "*) ;;
"get pods "*"spec.nodeName=worker-1,"*) printf 'tracing shimtrace-node-x\n' ;;
"get pods --namespace=other "*"spec.nodeName=worker-2,"*) printf 'other shimtrace-node-y\n' ;;
"get pods "*) ;;
"exec "*) echo "$@" ;;
*) echo "unexpected: $*" >&2; exit 9 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte(kubectl), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("./kubectl-shimtrace", args...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "SHIMTRACE_NAMESPACE=")
	if strings.Contains(strings.Join(args, " "), "web-0 --json") {
		cmd.Env = append(cmd.Env, "SHIMTRACE_NAMESPACE=other")
	}
	text, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func TestPlugin(t *testing.T) {
	for args, want := range map[string]string{
		"show default/web-0":                "exec -n tracing shimtrace-node-x -c watch -- /usr/bin/shimtrace show default/web-0\n",
		"explain web-0 --json":              "exec -n other shimtrace-node-y -c watch -- /usr/bin/shimtrace explain team/web-0 --json\n",
		"list --node worker-1 --limit 5":    "exec -n tracing shimtrace-node-x -c watch -- /usr/bin/shimtrace list --limit 5\n",
		"doctor --node=worker-1 --quiet":    "exec -n tracing shimtrace-node-x -c watch -- /usr/bin/shimtrace doctor --root=/host --quiet\n",
		"show --node worker-1 default/gone": "exec -n tracing shimtrace-node-x -c watch -- /usr/bin/shimtrace show default/gone\n",
	} {
		if out, code := plugin(t, strings.Fields(args)...); code != 0 || out != want {
			t.Errorf("%s: exit code %d: %s", args, code, out)
		}
	}
	for args, want := range map[string]string{
		"show":                 "name a pod",
		"show default/pending": "is on no node yet",
		"show --node nowhere":  "on node nowhere no pod",
	} {
		if out, code := plugin(t, strings.Fields(args)...); code == 0 || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d: %s", args, code, out)
		}
	}
	if out, code := plugin(t, "--help"); code != 0 || !strings.Contains(out, "Examples:") {
		t.Errorf("%d: %s", code, out)
	}
}
