package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/sassoftware/go-rpmutils"
)

// clone clones the tree's commit into a directory of its own.
func clone(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	if out, err := exec.Command("git", "clone", "--quiet", "--no-hardlinks", "..", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// TestReproducible: two clones in two directories give the same bytes, and in them is what
// a user needs.
func TestReproducible(t *testing.T) {
	var sums []string
	out := ""
	for range 2 {
		out = t.TempDir()
		if err := run(t.Context(), clone(t), out, archs()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, string(text))
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds differ:\n%s\n%s", sums[0], sums[1])
	}
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = out
	if said, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	for _, arch := range archs() {
		t.Run(arch, func(t *testing.T) {
			t.Run("archive", func(t *testing.T) { archive(t, arch, one(t, out, "*_"+arch+".tar.gz")) })
			t.Run("rpm", func(t *testing.T) { rpm(t, one(t, out, "*."+machines[arch].rpm+".rpm")) })
			t.Run("sbom", func(t *testing.T) { sbom(t, one(t, out, "*_"+arch+".cdx.json")) })
		})
	}
}

// archs are the architectures to build for: this machine's or, if SHIMTRACE_RELEASE is
// "all", those of a release, which takes the compiler a minute more.
func archs() []string {
	if os.Getenv("SHIMTRACE_RELEASE") == "all" {
		return []string{"amd64", "arm64"}
	}
	return []string{runtime.GOARCH}
}

// machines are the names of the architectures.
var machines = map[string]struct {
	rpm string
	elf elf.Machine
}{"amd64": {"x86_64", elf.EM_X86_64}, "arm64": {"aarch64", elf.EM_AARCH64}}

func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

// wanted are some of the files that everything has.
var wanted = []string{
	"usr/bin/shimtrace", "usr/bin/shimtrace-relay", "usr/bin/containerd-shim-traced-v2", "usr/bin/containerd-shim-runc-traced-v2", "usr/bin/containerd-shim-runc-traced",
	"etc/shimtrace/config.toml", "usr/share/man/man1/shimtrace-install.1.gz", "usr/share/man/man5/shimtrace-config.toml.5.gz",
	"usr/share/bash-completion/completions/shimtrace", "usr/lib/systemd/system/shimtrace-collect.service", "usr/share/doc/shimtrace/third-party-notices",
}

// archive unpacks it, looks at the programs, and runs the tool if it is this machine's.
func archive(t *testing.T, arch, file string) {
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-xzf", file, "-C", dir, "--strip-components=1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range wanted {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"shimtrace", "shimtrace-relay", "containerd-shim-traced-v2"} {
		program(t, filepath.Join(dir, "usr/bin", name), arch)
	}
	if arch == runtime.GOARCH {
		out, err := exec.Command(filepath.Join(dir, "usr/bin/shimtrace"), "version", "--json").Output()
		var v struct{ Version, Commit string }
		if err := json.Unmarshal(out, &v); err != nil {
			t.Fatal(err)
		}
		if err != nil || v.Version == "" || v.Commit == "" || !strings.Contains(filepath.Base(file), v.Version) {
			t.Errorf("%s of %s (%v)", out, file, err)
		}
	}
	notices, err := os.ReadFile(filepath.Join(dir, "usr/share/doc/shimtrace/third-party-notices"))
	if err != nil || !bytes.Contains(notices, []byte("\ngithub.com/containerd/ttrpc v")) || !bytes.Contains(notices, []byte("Copyright")) {
		t.Errorf("the notices: %v, %d bytes", err, len(notices))
	}
	page, err := exec.Command("gzip", "-dc", filepath.Join(dir, "usr/share/man/man1/shimtrace-show.1.gz")).Output()
	if err != nil || !bytes.HasPrefix(page, []byte(".TH \"SHIMTRACE\\-SHOW\" 1")) {
		t.Errorf("%v: the page begins with %.40q", err, page)
	}
	for shell, path := range completions {
		// All of them take -n: read, and do not run.
		if _, err := exec.LookPath(shell); err != nil && os.Getenv("CI") == "" {
			t.Logf("there is no %s to read its completions with", shell)
			continue
		}
		if out, err := exec.Command(shell, "-n", filepath.Join(dir, path)).CombinedOutput(); err != nil {
			t.Errorf("%s does not read its completions: %v: %s", shell, err, out)
		}
	}
}

// program checks that a program is of the architecture, and needs no libraries.
func program(t *testing.T, file, arch string) {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != machines[arch].elf {
		t.Errorf("%s is for %s, want %s", filepath.Base(file), f.Machine, machines[arch].elf)
	}
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Errorf("%s needs libraries", filepath.Base(file))
	}
}

func rpm(t *testing.T, file string) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := rpmutils.ReadRpm(f)
	if err != nil {
		t.Fatal(err)
	}
	all, err := p.Header.GetFiles()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range all {
		names = append(names, strings.TrimPrefix(f.Name(), "/"))
	}
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			t.Errorf("there is no %s in %q", name, names)
		}
	}
	if host, _ := p.Header.GetString(rpmutils.BUILDHOST); host != "localhost" {
		t.Errorf("it names the host %q", host)
	}
}

func sbom(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BOMFormat  string
		Components []struct {
			Name, PURL string
			Licenses   []struct{ Expression string }
		}
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	if bom.BOMFormat != "CycloneDX" || len(bom.Components) < 20 {
		t.Errorf("%s with %d components", bom.BOMFormat, len(bom.Components))
	}
	for _, c := range bom.Components {
		if c.PURL == "" || len(c.Licenses) != 1 || c.Licenses[0].Expression == "" {
			t.Errorf("%+v", c)
		}
	}
}

// TestVersion: versions sort as they follow on each other.
func TestVersion(t *testing.T) {
	for described, want := range map[string]string{
		"v0.1.0": "0.1.0", "v0.1.0-3-gabc1234": "0.2.0~dev.abc1234", "abc1234": "0.2.0~dev.abc1234", "abc1234-dirty": "0.2.0~dev.abc1234.dirty",
		"v0.1.0-dirty": "0.2.0~dev.v0.1.0.dirty",
	} {
		if got := version(described, "0.2.0"); got != want {
			t.Errorf("%s is %s, want %s", described, got, want)
		}
	}
}

// TestNoLicense: what may not be passed on is not linked.
func TestNoLicense(t *testing.T) {
	m := linkedModule{Path: "example.com/x", Version: "v1.0.0"}
	if err := m.read(t.TempDir()); err == nil || !strings.Contains(fmt.Sprint(err), "has no license") {
		t.Errorf("got %v", err)
	}
}
