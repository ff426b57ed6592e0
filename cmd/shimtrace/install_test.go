package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// installed is the output of install --json.
type installed struct {
	Runtimes []struct {
		Name, Inner, Like, Shim string
		Type                    string `json:"runtime_type"`
		Path                    string `json:"runtime_path"`
		Sections                []struct {
			Version int
			Text    string
		}
	}
	Kata []struct {
		Action  string
		Configs []struct{ Runtime string } `json:"configurations"`
	}
	Notes []string
}

// ourProgram reports whether the file is a program built from this module.
func ourProgram(path string) bool {
	info, err := buildinfo.ReadFile(path)
	return err == nil && info.Main.Path == "github.com/shimtrace/shimtrace"
}

// linkFile gives a large file another name, or copies it where that cannot be.
func linkFile(to, from string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755)
}

// site is a host in a temporary directory: inner shims on PATH, and a directory to install
// into. Beside it is a build directory with shimtrace's programs (one is the test binary).
type site struct {
	t                  *testing.T
	build, inner, bin_ string
	root               string // usually without containerd
	node               string // that the environment names
}

func newSite(t *testing.T, inners ...string) *site {
	t.Helper()
	root := t.TempDir()
	p := &site{t, filepath.Join(t.TempDir(), "build"), filepath.Join(root, "inner"), filepath.Join(root, "target"), root, ""}
	for _, dir := range []string{p.build, p.inner, p.bin_} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := resolvedExecutable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{shimname.Program, shimname.RelayProgram} {
		if err := linkFile(filepath.Join(p.build, name), self); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range inners {
		p.write(filepath.Join(p.inner, "containerd-shim-"+name+"-v2"))
	}
	return p
}

func (p *site) shim() string { return filepath.Join(p.build, shimname.Program) }

func (p *site) bin(name string) string { return filepath.Join(p.bin_, name) }

// write creates a foreign program.
func (p *site) write(path string) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		p.t.Fatal(err)
	}
}

func (p *site) install(args ...string) result {
	p.t.Helper()
	env := map[string]string{"PATH": "/inner:/target", "K8S_NODE_NAME": p.node}
	return command(p.t, env, append([]string{"install", "--bindir", "/target", "--shim", p.shim(), "--root", p.root}, args...)...)
}

// names returns the files in the bin directory.
func (p *site) names() string {
	p.t.Helper()
	entries, err := os.ReadDir(p.bin_)
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestInstall(t *testing.T) {
	p := newSite(t, "runc", "kata-qemu")
	p.install().want(t, console.OK, `runtime_type = 'io.containerd.kata-qemu-traced.v2'`, "")
	const want = "containerd-shim-kata-qemu-traced-v2 containerd-shim-runc-traced containerd-shim-runc-traced-v2 containerd-shim-traced-v2 shimtrace shimtrace-relay"
	if got := p.names(); got != want {
		t.Fatalf("installed %s, want %s", got, want)
	}
	if target, err := os.Readlink(p.bin("containerd-shim-runc-traced-v2")); target != shimname.Program {
		t.Errorf("the link leads to %q (%v)", target, err)
	}
	if !ourProgram(p.bin("containerd-shim-runc-traced-v2")) {
		t.Error("the link does not lead to the shim")
	}
	// Again: the installed programs are on PATH now, and nothing changes.
	again := p.install()
	again.want(t, console.OK, "keep", "")
	if strings.Contains(again.stdout, "copy ") || strings.Contains(again.stdout, "link ") || p.names() != want {
		t.Errorf("the second time changed something:\n%s", again.stdout)
	}

	p.install("--uninstall", "runc").want(t, console.OK, "remove", "")
	if got := p.names(); strings.Contains(got, "runc") || !strings.Contains(got, "kata") {
		t.Errorf("without runc there is %s", got)
	}
	p.install("--uninstall").want(t, console.OK, "remove", "")
	if got := p.names(); got != "" {
		t.Errorf("left behind: %s", got)
	}
	p.install("--uninstall").want(t, console.Nothing, "", "/target")
}

// TestInstallOtherShims installs for shims whose names do not end in "-v2".
func TestInstallOtherShims(t *testing.T) {
	p := newSite(t, "runc")
	for _, name := range []string{"containerd-shim-runc-v1", "containerd-shim-runsc-v1", "containerd-shim-aws-firecracker", "containerd-shim-note.txt"} {
		p.write(filepath.Join(p.inner, name))
	}
	r := p.install()
	for _, text := range []string{
		`runtime_type = 'io.containerd.runsc-traced.v1'`,
		`runtime_type = 'io.containerd.aws-firecracker.traced'`,
		"nerdctl run --runtime io.containerd.runc.traced …",
		"nerdctl run --runtime io.containerd.runsc-traced.v1 …",
	} {
		r.want(t, console.OK, text, "")
	}
	const want = "containerd-shim-aws-firecracker-traced containerd-shim-runc-traced containerd-shim-runc-traced-v2 containerd-shim-runsc-traced-v1 containerd-shim-traced-v2 shimtrace shimtrace-relay"
	if got := p.names(); got != want {
		t.Errorf("installed %s, want %s", got, want)
	}
	p.install("--uninstall").want(t, console.OK, "remove", "")
	if got := p.names(); got != "" {
		t.Errorf("left behind: %s", got)
	}
	for _, tt := range []struct{ arg, want string }{
		{"runsc", "containerd-shim-runsc-traced-v1"},
		{"containerd-shim-runsc-v1", "containerd-shim-runsc-traced-v1"},
		{"containerd-shim-runsc-v2", "containerd-shim-runsc-traced-v2"},
		{"/opt/bin/containerd-shim-spin-v2", "containerd-shim-spin-traced-v2"},
		{"containerd-shim-runc-v1", "containerd-shim-runc-traced-v1"},
		{"aws-firecracker", "containerd-shim-aws-firecracker-traced"},
	} {
		p.install("--uninstall")
		p.install(tt.arg).want(t, console.OK, "link", "")
		if _, err := os.Readlink(p.bin(tt.want)); err != nil {
			t.Errorf("install %s: %v; there is %s", tt.arg, err, p.names())
		}
	}
	for _, arg := range []string{"containerd-shim-traced-v2", "runc-traced", "a b", "", "containerd-shim-runc-traced-v2"} {
		p.install(arg).want(t, console.Usage, "", "is not the name of an inner shim")
	}
}

func TestInstallDryRun(t *testing.T) {
	p := newSite(t, "runc")
	p.install("--dry-run").want(t, console.OK, "would link", "")
	if got := p.names(); got != "" {
		t.Errorf("a dry run made %s", got)
	}
	p.install().want(t, console.OK, "link", "")
	before := p.names()
	p.install("--uninstall", "--dry-run").want(t, console.OK, "would remove", "")
	if got := p.names(); got != before {
		t.Errorf("a dry run left %s of %s", got, before)
	}
}

// TestInstallForeign: foreign files stay, all are reported, and nothing is half done.
func TestInstallForeign(t *testing.T) {
	p := newSite(t, "runc", "kata")
	p.write(p.bin("containerd-shim-runc-traced-v2"))
	p.write(p.bin("shimtrace"))
	r := p.install()
	r.want(t, console.Failure, "", "containerd-shim-runc-traced-v2 is there and not shimtrace's")
	r.want(t, console.Failure, "", "/shimtrace is there and not shimtrace's")
	if got := p.names(); got != "containerd-shim-runc-traced-v2 shimtrace" {
		t.Errorf("there is %s now", got)
	}
	p.install("--uninstall").want(t, console.Nothing, "", "nothing of shimtrace")
	p.install("--force").want(t, console.OK, "link", "")
	if !ourProgram(p.bin("shimtrace")) || !ourProgram(p.bin("containerd-shim-runc-traced-v2")) {
		t.Error("--force replaced nothing")
	}
}

// TestInstallReplacesOurs: an older link or program of shimtrace is updated.
func TestInstallReplacesOurs(t *testing.T) {
	p := newSite(t, "runc")
	if err := os.Symlink("/gone/"+shimname.Program, p.bin("containerd-shim-runc-traced-v2")); err != nil {
		t.Fatal(err)
	}
	p.install().want(t, console.OK, "link", "")
	if target, _ := os.Readlink(p.bin("containerd-shim-runc-traced-v2")); target != shimname.Program {
		t.Errorf("the link leads to %q", target)
	}
}

func TestInstallMissing(t *testing.T) {
	p := newSite(t)
	p.install().want(t, console.Nothing, "", "name the inner shim")
	p.install("runc").want(t, console.OK, "link", "containerd-shim-runc-v2 is not on PATH")
	p.install("--shim", "/nonexistent/shim", "runc").want(t, console.Failure, "", "/nonexistent/shim")
	p.install("--shim", "/bin/sh", "runc").want(t, console.Failure, "", "is not shimtrace's")
}

// TestSnippets: the printed configuration for containerd is well-formed TOML.
func TestSnippets(t *testing.T) {
	p := newSite(t, "runc", "kata-qemu", "other")
	r := p.install("--json", "--dry-run")
	var out installed
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil {
		t.Fatalf("%v: %s%s", err, r.stdout, r.stderr)
	}
	type runtimes struct {
		Containerd struct {
			Runtimes map[string]struct {
				Type string `toml:"runtime_type"`
				Path string `toml:"runtime_path"`
			}
		}
	}
	plugins := map[int]string{3: "io.containerd.cri.v1.runtime", 2: "io.containerd.grpc.v1.cri"}
	for _, rt := range out.Runtimes {
		if len(rt.Sections) != 2 {
			t.Fatalf("%s has the sections %+v", rt.Name, rt.Sections)
		}
		for _, section := range rt.Sections {
			var doc struct{ Plugins map[string]runtimes }
			if err := toml.Unmarshal([]byte(section.Text), &doc); err != nil {
				t.Fatalf("%v in:\n%s", err, section.Text)
			}
			got := doc.Plugins[plugins[section.Version]].Containerd.Runtimes[rt.Name]
			if got.Type != rt.Type || got.Path != rt.Path {
				t.Errorf("%s: got %+v, want type %q and path %q", rt.Name, got, rt.Type, rt.Path)
			}
		}
	}
	if len(out.Runtimes) != 3 || out.Runtimes[2].Type != "io.containerd.runc.v2" || out.Runtimes[2].Path != "/target/containerd-shim-runc-traced-v2" {
		t.Errorf("got %+v", out.Runtimes)
	}
}

// TestInstallMakesDirectories: a target directory that is not there is made, and removed with
// the rest, as far as nobody has put anything there.
func TestInstallMakesDirectories(t *testing.T) {
	p := newSite(t, "runc", "kata-qemu")
	for _, dir := range []string{"opt", "opt/mine"} {
		if err := os.Mkdir(filepath.Join(p.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, p.root)
	dir := filepath.Join(p.root, "opt/shimtrace/local/bin")
	install := func(args ...string) result {
		t.Helper()
		return p.install(append(args, "--bindir", "/opt/shimtrace/local/bin")...)
	}
	install("--dry-run").want(t, console.OK, "would make   "+dir, "")
	install().want(t, console.OK, "make   "+dir, "")
	install().want(t, console.OK, "keep   "+dir, "") // which forgets nothing
	install("--uninstall", "kata-qemu").want(t, console.OK, "remove", "")
	install("--uninstall").want(t, console.OK, "remove", "")
	if after := tree(t, p.root); after != before {
		t.Errorf("left: %s\nbefore: %s", after, before)
	}
	install().want(t, console.OK, "make   "+dir, "")
	p.write(filepath.Join(p.root, "opt/shimtrace/theirs"))
	install("--uninstall").want(t, console.OK, "remove", "")
	if _, err := os.Lstat(filepath.Join(p.root, "opt/shimtrace/theirs")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(p.root, "opt/shimtrace/local")); err == nil {
		t.Error("an empty directory is left that was made for it")
	}
	// One that was there stays, though it is empty.
	p.install().want(t, console.OK, "copy", "")
	p.install("--uninstall").want(t, console.OK, "remove", "")
	if names := p.names(); names != "" {
		t.Errorf("%s is left", names)
	}
}

// TestInstallConfig: a configuration is put where shims read it, unless the operator's own
// is there, and goes with the rest.
func TestInstallConfig(t *testing.T) {
	p := newSite(t, "runc")
	before := tree(t, p.root)
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("[trace]\nmode = \"never\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.install("--config", file).want(t, console.Failure, "", "line 2, column")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[trace]\nmode = \"dynamic\"\n[journal]\ndir = %q\n", t.TempDir()), 0o600); err != nil {
		t.Fatal(err)
	}
	p.install("--config", file).want(t, console.OK, "config "+p.root+"/etc/shimtrace/config.toml", "")
	p.install("--config", file).want(t, console.OK, "keep   "+p.root+"/etc/shimtrace/config.toml", "")
	command(t, map[string]string{"SHIMTRACE_CONFIG": p.root + "/etc/shimtrace/config.toml"}, "list").want(t, console.Nothing, "", "")
	p.install("--uninstall").want(t, console.OK, "remove", "")
	if err := os.Remove(filepath.Join(p.root, "etc")); err != nil {
		t.Error(err) // only etc/shimtrace is noted to have been made
	}
	if after := tree(t, p.root); after != before {
		t.Errorf("left: %s\nbefore: %s", after, before)
	}
	if err := os.MkdirAll(filepath.Join(p.root, "etc/shimtrace"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.root, "etc/shimtrace/config.toml"), []byte("# mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.install("--config", file).want(t, console.Failure, "", "--force replaces it")
	p.install("--uninstall").want(t, console.Nothing, "", "nothing of shimtrace")
}

// TestInstallNode: the node that the environment names is in the configuration, unless that
// names one, and otherwise the configuration is as it was.
func TestInstallNode(t *testing.T) {
	p := newSite(t, "runc")
	before := tree(t, p.root)
	at := p.root + "/etc/shimtrace/config.toml"
	p.node = "node-1"
	p.install().want(t, console.OK, "config "+at, "")
	p.install().want(t, console.OK, "keep   "+at, "")
	p.node = "node-2"
	p.install().want(t, console.OK, "config "+at, "")
	says := func(node, mode string) {
		t.Helper()
		cfg, report := config.Load("", func(name string) string { return map[string]string{config.PathEnv: at}[name] })
		if err := report.Err(); err != nil || cfg.Resource["k8s.node.name"] != node || cfg.Trace.Mode != mode {
			text, _ := os.ReadFile(at)
			t.Errorf("%v, node %q, mode %q:\n%s", err, cfg.Resource["k8s.node.name"], cfg.Trace.Mode, text)
		}
	}
	says("node-2", "static")
	file := filepath.Join(t.TempDir(), "config.toml")
	for _, tt := range []struct{ text, node string }{
		{"[trace]\nmode = 'dynamic'", "node-2"},
		{"[trace]\nmode = 'dynamic'\n\n [ resource ] # ours\na = 'b'\n", "node-2"},
		{"trace.mode = 'dynamic'\nresource.a = 'b'\n", "node-2"},
		{"[trace]\nmode = 'dynamic'\n[resource]\n'k8s.node.name' = 'mine'\n", "mine"},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		p.install("--config", file).want(t, console.OK, "config "+at, "")
		says(tt.node, "dynamic")
	}
	p.install().want(t, console.OK, "keep", "") // leaves it alone
	says("mine", "dynamic")
	p.install("--uninstall").want(t, console.OK, "remove", "")
	if err := os.Remove(filepath.Join(p.root, "etc")); err != nil {
		t.Error(err)
	}
	if after := tree(t, p.root); after != before {
		t.Errorf("left: %s\nbefore: %s", after, before)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte("# mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.install().want(t, console.OK, "link", "")
	says("", "static")
}
