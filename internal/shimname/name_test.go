package shimname

import (
	"fmt"
	"strings"
	"testing"
)

// binaryName returns the shim's name for a runtime type, like BinaryName of
// pkg/shim/util.go in containerd 2.4.2.
func binaryName(runtime string) string {
	parts := strings.Split(runtime, ".")
	return fmt.Sprintf("containerd-shim-%s-%s", parts[len(parts)-2], parts[len(parts)-1])
}

// TestShimsThatExist uses shims' names from their projects.
func TestShimsThatExist(t *testing.T) {
	for _, tt := range []struct{ file, inner, link, runtime string }{
		{"containerd-shim-runc-v2", "runc", "containerd-shim-runc-traced-v2", "io.containerd.runc-traced.v2"},
		{"containerd-shim-kata-v2", "kata", "containerd-shim-kata-traced-v2", "io.containerd.kata-traced.v2"},
		{"/opt/kata/bin/containerd-shim-kata-qemu-v2", "kata-qemu", "containerd-shim-kata-qemu-traced-v2", "io.containerd.kata-qemu-traced.v2"},
		{"containerd-shim-runsc-v1", "runsc", "containerd-shim-runsc-traced-v1", "io.containerd.runsc-traced.v1"},
		{"containerd-shim-wasmtime-v1", "wasmtime", "containerd-shim-wasmtime-traced-v1", "io.containerd.wasmtime-traced.v1"},
		{"containerd-shim-spin-v2", "spin", "containerd-shim-spin-traced-v2", "io.containerd.spin-traced.v2"},
		{"containerd-shim-nerdbox-v1", "nerdbox", "containerd-shim-nerdbox-traced-v1", "io.containerd.nerdbox-traced.v1"},
		{"containerd-shim-aws-firecracker", "aws-firecracker", "containerd-shim-aws-firecracker-traced", "io.containerd.aws-firecracker.traced"},
	} {
		n, ok := Parse(tt.file)
		if !ok || n.Inner != tt.inner || n.Link() != tt.link || n.RuntimeType() != tt.runtime {
			t.Errorf("%s: %+v, %v, link %s, type %s", tt.file, n, ok, n.Link(), n.RuntimeType())
		}
		if got := binaryName(tt.runtime); got != tt.link {
			t.Errorf("containerd runs %s for %s, not %s", got, tt.runtime, tt.link)
		}
		back, ok := ParseLink("/usr/local/bin/" + tt.link)
		if !ok || back != n || !strings.HasSuffix(tt.file, back.File()) {
			t.Errorf("the link %s wraps %+v, %v", tt.link, back, ok)
		}
	}
}

func TestRuncWithOptions(t *testing.T) {
	n := RuncWithOptions
	if got := n.RuntimeType(); got != "io.containerd.runc.traced" || binaryName(got) != n.Link() {
		t.Errorf("type %s, link %s", got, n.Link())
	}
	if back, ok := ParseLink(n.Link()); !ok || back != n || back.Files()[1] != Runc.File() {
		t.Errorf("the link wraps %+v, %v: %q", back, ok, back.Files())
	}
}

func TestOfType(t *testing.T) {
	for runtimeType, want := range map[string]Name{
		"io.containerd.runc.v2":            Runc,
		"io.containerd.kata-qemu-dev.v2":   {"kata-qemu-dev", "v2"},
		"aws.firecracker":                  {"aws-firecracker", ""},
		"io.containerd.runsc.v1":           {"runsc", "v1"},
		"io.containerd.kata-traced.v2":     {},
		"io.containerd.runc.traced":        {},
		"":                                 {},
		"runc":                             {},
		".v2":                              {},
		"/usr/local/bin/containerd-shim-x": {},
	} {
		if got, ok := OfType(runtimeType); got != want || ok != (want != Name{}) {
			t.Errorf("%q: got %+v, %v, want %+v", runtimeType, got, ok, want)
		}
	}
}

func TestNamesOfOthers(t *testing.T) {
	for _, file := range []string{
		"", "containerd-shim", "containerd-shim-", "containerd-shim--v2", "containerd-shim-a__b-v2", "containerd-shim-a.sh", "runc",
		Program, "containerd-shim-runc-traced-v2", "containerd-shim-runc-traced", "containerd-shim-traced-traced-v2",
		"/containerd-shim-runc-v2/x",
	} {
		if n, ok := Parse(file); ok {
			t.Errorf("%q is taken for the inner shim %+v", file, n)
		}
	}
	for _, link := range []string{"", Program, "containerd-shim-runc-v2", "shimtrace", "containerd-shim-traced", "/containerd-shim-runc-traced-v2/containerd-shim-x"} {
		if n, ok := ParseLink(link); ok {
			t.Errorf("%q is taken for a link to %+v", link, n)
		}
	}
}
