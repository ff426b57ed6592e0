package packages

import (
	"context"
	_ "embed"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/machine"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/integration/traced"
)

//go:embed containerd.sh
var containerd string

// endless is how long a command takes at least that does not end.
const endless = 3 * time.Minute

// TestDocuments runs the documents' commands as they stand there, in their order, on a
// machine with systemd and containerd, beginning with the package's installation. When the
// package is purged, the machine is as it was before.
func TestDocuments(t *testing.T) {
	if !all {
		t.Skip("takes a minute: make test-release")
	}
	m := machine.Start(t, traced.Root())
	run := func(script string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), endless)
		defer cancel()
		out, err := m.Run(ctx, "cd "+traced.Root()+"\n"+script)
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		return out
	}
	prepare(t, m, run)
	before := state(t, m)
	begun := time.Now()
	ran := make(map[string]bool)
	for _, c := range commands(t) {
		first := !ran[c.line]
		ran[c.line] = true
		r := rules[c.line]
		if r.elsewhere != "" {
			continue
		}
		run(r.before)
		script := c.line
		if r.instead != "" {
			script = r.instead
		}
		out := run(script)
		for _, want := range r.says {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %s: it does not say %q:\n%s", c.document, c.line, want, out)
			}
		}
		run(r.after)
		switch {
		case first && c.line == "shimtrace show hello":
			t.Logf("from the package to the first waterfall, and a look at the units: %s", time.Since(begun).Round(10*time.Millisecond))
		case first && c.line == install:
			t.Logf("to install the package: %s", time.Since(begun).Round(10*time.Millisecond))
			units(t, run)
		}
	}
	run(withoutPods + "apt-get purge shimtrace")
	for _, line := range state(t, m) {
		if !slices.Contains(before, line) {
			t.Errorf("purged, there is: %s", line)
		}
	}
}

// TestRules: each rule is for a command of the documents.
func TestRules(t *testing.T) {
	documented := commands(t)
	for line := range rules {
		if !slices.ContainsFunc(documented, func(c command) bool { return c.line == line }) {
			t.Errorf("no document has the command %q", line)
		}
	}
	if len(documented) < 40 {
		t.Errorf("only %d commands were found", len(documented))
	}
}

// prepare makes the machine one with containerd, with a package and a source tree whose
// programs are built.
func prepare(t *testing.T, m *machine.Machine, run func(string) string) {
	t.Helper()
	var tools string
	for _, tool := range []toolset.Tool{toolset.Containerd24, toolset.Runc, toolset.Nerdctl, toolset.Crictl} {
		tools = tool.Needed(t)
	}
	images, err := image.Archive(tools, image.BusyboxPath)
	if err != nil {
		t.Fatal(err)
	}
	run("TOOLS=" + tools + " IMAGES=" + images + "\n" + containerd)
	deb := built(t, "*_amd64.deb")
	if err := m.Put(filepath.Join(traced.Root(), filepath.Base(deb)), deb); err != nil {
		t.Fatal(err)
	}
	bin, err := traced.Bin()
	if err != nil {
		t.Fatal(err)
	}
	run("mkdir -p bin")
	for _, name := range []string{"shimtrace", "shimtrace-relay", "containerd-shim-traced-v2"} {
		if err := m.Put(filepath.Join(traced.Root(), "bin", name), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// units verifies the package's units, and has systemd run them as they are. The one of
// collect stays enabled.
func units(t *testing.T, run func(string) string) {
	t.Helper()
	if out := run("systemd-analyze verify shimtrace-collect.service shimtrace-forward.service 2>&1"); out != "" {
		t.Errorf("the units:\n%s", out)
	}
	run(`
systemctl enable --now shimtrace-collect shimtrace-forward
until shimtrace doctor --json | grep -q 'shimtrace collect answers'; do sleep 0.1; done
until journalctl -u shimtrace-forward | grep -q 'listening for agents'; do sleep 0.1; done
# What dies is started again.
killed=$(systemctl show --property MainPID --value shimtrace-collect)
kill -KILL "$killed"
until now=$(systemctl show --property MainPID --value shimtrace-collect) && [ "$now" != 0 ] && [ "$now" != "$killed" ]; do sleep 0.1; done
systemctl disable --now shimtrace-forward`)
}

// state returns what differs of the machine's files, but for what package managers,
// systemd and nerdctl keep for themselves, and for directories that are here, too.
func state(t *testing.T, m *machine.Machine) []string {
	t.Helper()
	lines, err := m.Changed(t.Context(), "etc", "usr", "opt", "var")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(lines, func(line string) bool {
		fields := strings.Fields(line) // type, mode, and of a file its sum; path
		path := "/" + fields[2]
		if fields[0] == "f" {
			path = "/" + fields[3]
		}
		for _, others := range []string{"/var/lib/dpkg", "/var/lib/apt", "/var/lib/PackageKit", "/var/cache", "/var/lib/systemd", "/var/log", "/var/tmp", "/etc/cni"} {
			if strings.HasPrefix(path, others) {
				return true
			}
		}
		info, err := os.Stat(path)
		return fields[0] == "d" && err == nil && info.IsDir()
	})
}
