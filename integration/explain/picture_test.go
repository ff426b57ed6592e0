package explain_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/names"
)

// TestPicture makes the picture of a pod on runc in docs/looking.md, from the caller's
// request to the container's first instruction, and the short one in the README. "make
// picture" has them written there.
func TestPicture(t *testing.T) {
	s := start(t, traced.Options{})
	p := s.podOf(t.Context(), "web") // as crictl does, each request has a trace of its own
	check(t, p.start(image.Busybox))
	p.explained()
	// The kernel may tell of it after Start was answered.
	s.explained(p.sandbox.ID, func(e *explain.Explanation) bool { return e.Start.Exact })
	cmd := exec.Command(filepath.Join(s.Bin, "shimtrace"), "show", "--journal", s.Journal, "--width", "110", "default/web")
	out, err := cmd.Output()
	check(t, err)
	// What matters of it.
	cmd = exec.Command(cmd.Path, append(slices.Clone(cmd.Args[1:len(cmd.Args)-1]), "--min", "15ms", "default/web")...)
	short, err := cmd.Output()
	check(t, err)
	all, err := s.Spans()
	check(t, err)
	unnamed := len(otlprecv.Named(all, names.UnknownProgram)) > 0
	check(t, s.Rig.CRI().RemovePods(t.Context()))
	for _, want := range []string{"RunPodSandbox", "cni.setup_pod_network", "shim start", "runc create", "StartContainer", "runc start", "critical path", "self time"} {
		if strings.HasPrefix(want, "runc ") && unnamed {
			continue // it has ended before anybody could look at it: the machine is busy
		}
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	t.Logf("\n%s", out)
	if os.Getenv("SHIMTRACE_WRITE_EXPLAIN") == "" {
		return
	}
	write(t, "docs/looking.md", out)
	write(t, "README.md", short)
}

// write puts a picture into its place in a document.
func write(t *testing.T, document string, picture []byte) {
	t.Helper()
	path := filepath.Join(traced.Root(), document)
	data, err := os.ReadFile(path)
	check(t, err)
	const begin, end = "<!-- picture: make picture -->\n```\n", "```\n<!-- end of the picture -->"
	head, rest, ok := strings.Cut(string(data), begin)
	_, tail, ends := strings.Cut(rest, end)
	if !ok || !ends {
		t.Fatalf("%s has no place for the picture", document)
	}
	check(t, os.WriteFile(path, []byte(head+begin+string(picture)+end+tail), 0o644))
}
