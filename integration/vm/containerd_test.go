package vm_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/integration/vm"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

//go:embed containerd-host.sh
var hostScript string

// TestContainerdInAGuest: a host that differs from the machine that tests run on: Debian's
// kernel, cgroups of version 2, no systemd, all files in memory, one processor that is
// emulated. What a user does there works, and the pod's throttled time is found.
func TestContainerdInAGuest(t *testing.T) {
	root, err := toolset.Root()
	testkit.Check(t, err)
	for _, tool := range []toolset.Tool{toolset.Containerd24, toolset.Runc} {
		if !tool.Built(root) && os.Getenv("CI") == "" {
			t.Skipf("%s is not in %s: go -C integration run ./tools", tool, root)
		}
	}
	bin, err := traced.Bin()
	testkit.Check(t, err)
	defer traced.Clean()
	images, err := image.Archive(t.TempDir(), image.BusyboxPath)
	testkit.Check(t, err)
	script := filepath.Join(t.TempDir(), "host")
	testkit.Check(t, os.WriteFile(script, []byte(hostScript), 0o700))

	files := map[string]string{"bin/host": script, "images.tar": images}
	for _, name := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		files["usr/bin/"+name] = filepath.Join(toolset.Containerd24.Dir(root), name)
	}
	files["usr/bin/runc"] = filepath.Join(toolset.Runc.Dir(root), "runc")
	for _, program := range []string{files["usr/bin/containerd"], files["usr/bin/runc"]} {
		libraries, err := toolset.Libraries(t.Context(), program)
		testkit.Check(t, err)
		for _, l := range libraries {
			files[l] = l
		}
	}
	for _, name := range []string{"shimtrace", "shimtrace-relay", "containerd-shim-traced-v2"} {
		files["opt/shimtrace/"+name] = filepath.Join(bin, name)
	}
	g := vm.StartHybrid(t, vm.HybridOptions{
		Socket:   filepath.Join(t.TempDir(), "vm.sock"),
		Files:    files,
		Modules:  []string{"overlay"},
		Kernel:   "psi=1",
		MemoryMB: 1500,
		Log:      t.Output(),
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sh := func(command string) string {
		t.Helper()
		out, err := g.Sh(ctx, command)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	sh("host up")
	if out := sh("host run"); out != "hello\n" {
		t.Errorf("the container says %q", out)
	}
	t.Logf("%s\n%s", sh("shimtrace show c1"), sh("shimtrace explain c1"))

	// The pod's cgroup is found among those of version 2, and so is what it says.
	shown := sh("shimtrace show c1 --json")
	for _, name := range []string{names.CgroupManager, names.Throttled, names.PressureCPU} {
		if !strings.Contains(shown, `"`+name+`"`) {
			t.Errorf("no span has %s", name)
		}
	}
	var explained struct {
		Causes []struct{ ID string }
	}
	testkit.Check(t, json.Unmarshal([]byte(sh("shimtrace explain c1 --json")), &explained))
	if !slices.Contains(explained.Causes, struct{ ID string }{"cpu-throttled"}) {
		t.Errorf("causes %v, want cpu-throttled", explained.Causes)
	}
	if out, err := g.Sh(ctx, "shimtrace doctor"); err != nil && !strings.Contains(out, " 0 errors") {
		t.Error(err)
	}
	sh("host down")
}
