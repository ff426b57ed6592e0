package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/host/hosttest"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// kataSite is a site with Kata below a root: one configuration for each runtime, as
// kata-deploy installs them, and no shim on PATH.
type kataSite struct {
	*site
}

const (
	kataDefaults = "opt/kata/share/defaults/kata-containers/"
	kataQEMU     = kataDefaults + "runtimes/qemu/"
	kataCLH      = kataDefaults + "runtime-rs/runtimes/clh-runtime-rs/"
	kataDropIn   = "config.d/80-shimtrace.toml"
)

func newKataSite(t *testing.T, inners ...string) *kataSite {
	t.Helper()
	p := &kataSite{newSite(t, inners...)}
	for name, content := range map[string]string{
		kataQEMU + "configuration-qemu.toml":              "[agent.kata]\n[runtime]\n",
		kataQEMU + "config.d/50-user-overrides.toml":      "[runtime]\nenable_debug = true\n",
		kataCLH + "configuration-clh-runtime-rs.toml":     "[agent.kata]\n[runtime]\nagent_name = \"kata\"\n",
		"opt/kata/bin/containerd-shim-kata-v2":            "",
		"opt/kata/runtime-rs/bin/containerd-shim-kata-v2": "",
		"opt/kata/VERSION":                                "4.1.0\n",
	} {
		p.put(name, content)
	}
	return p
}

func (p *kataSite) put(name, content string) {
	p.t.Helper()
	path := filepath.Join(p.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *kataSite) install(args ...string) result {
	p.t.Helper()
	return p.site.install(args...)
}

// dropIns returns the configurations with a drop-in of shimtrace.
func (p *kataSite) dropIns() string {
	p.t.Helper()
	var there []string
	for name, dir := range map[string]string{"qemu": kataQEMU, "clh": kataCLH} {
		if _, err := os.Stat(filepath.Join(p.root, dir, kataDropIn)); err == nil {
			there = append(there, name)
		}
	}
	if len(there) == 2 {
		return "both"
	}
	return strings.Join(there, "")
}

func (p *kataSite) read(name string) string {
	p.t.Helper()
	content, err := os.ReadFile(filepath.Join(p.root, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(content)
}

func TestInstallKata(t *testing.T) {
	p := newKataSite(t, "runc")
	r := p.install("--kata")
	r.want(t, console.OK, "write  "+filepath.Join(p.root, kataQEMU, kataDropIn), "")
	for _, text := range []string{
		"agent and runtime in sandboxes that start from now on",
		"(runtime-rs 4.1.0)", "(runtime in Go 4.1.0)",
		`runtime_type = 'io.containerd.kata-qemu-traced.v2'`,
		"-traced.options]\n  ConfigPath = '/" + kataCLH + "configuration-clh-runtime-rs.toml'\n",
		"[runtime.kata-qemu]\nshim = \"/opt/kata/bin/containerd-shim-kata-v2\"\n",
		"[runtime.kata-clh-runtime-rs]\nshim = \"/opt/kata/runtime-rs/bin/containerd-shim-kata-v2\"\n",
	} {
		r.want(t, console.OK, text, "")
	}
	for _, inner := range []string{"runc", "kata-qemu", "kata-clh-runtime-rs"} {
		if _, err := os.Readlink(p.bin("containerd-shim-" + inner + "-traced-v2")); err != nil {
			t.Errorf("no link for %s: %v", inner, err)
		}
	}
	const lines = "[agent.kata]\nenable_tracing = true\n\n[runtime]\nenable_tracing = true\njaeger_endpoint = \"http://127.0.0.1:276/api/traces\"\n"
	if got := p.read(kataQEMU + kataDropIn); !strings.HasSuffix(got, lines) {
		t.Errorf("the drop-in has:\n%s", got)
	}
	p.install("--kata").want(t, console.OK, "keep   "+filepath.Join(p.root, kataCLH, kataDropIn), "")

	p.install("--uninstall", "--kata", "kata-qemu").want(t, console.OK, "remove", "")
	if got := p.dropIns(); got != "clh" {
		t.Errorf("without kata-qemu's: %q", got)
	}
	p.install("--uninstall", "--kata").want(t, console.OK, "remove", "")
	if got, links := p.dropIns(), p.names(); got != "" || !strings.Contains(links, "kata-qemu-traced") {
		t.Errorf("only the drop-ins were to go: %q, %s", got, links)
	}
	p.install("--uninstall", "--kata").want(t, console.Nothing, "", "no drop-in of shimtrace")
}

// TestUninstallTakesKataBack: a full uninstallation removes the drop-ins, since nothing
// takes Kata's spans any more; removing one shim's link does not.
func TestUninstallTakesKataBack(t *testing.T) {
	p := newKataSite(t, "runc")
	p.install("--kata").want(t, console.OK, "write", "")
	p.install("--uninstall", "runc").want(t, console.OK, "remove", "")
	if got := p.dropIns(); got != "both" {
		t.Errorf("with runc the drop-ins went: %q", got)
	}
	p.install("--uninstall", "--dry-run").want(t, console.OK, "would remove "+filepath.Join(p.root, kataQEMU, kataDropIn), "")
	p.install("--uninstall").want(t, console.OK, "remove", "")
	if got, links := p.dropIns(), p.names(); got != "" || links != "" {
		t.Errorf("left: %q, %s", got, links)
	}
}

func TestInstallKataChoice(t *testing.T) {
	p := newKataSite(t)
	p.install("--kata", "--dry-run").want(t, console.OK, "would write", "")
	p.install("--kata", "--kata-runtime=false", "kata-qemu").want(t, console.OK, "traces its agent in", "")
	if got := p.read(kataQEMU + kataDropIn); p.dropIns() != "qemu" || strings.Contains(got, "jaeger") || !strings.Contains(got, "agent.kata") {
		t.Errorf("%s has the drop-in:\n%s", p.dropIns(), got)
	}
	p.install("--kata", "--kata-agent=false", "kata-qemu").want(t, console.OK, "traces its runtime in", "")
	if got := p.read(kataQEMU + kataDropIn); !strings.Contains(got, "jaeger") || strings.Contains(got, "agent") {
		t.Errorf("the drop-in has:\n%s", got)
	}
	file := filepath.Join(p.root, kataCLH, "configuration-clh-runtime-rs.toml")
	p.install("--kata", "--kata-config", file, "kata").want(t, console.OK, file, "containerd-shim-kata-v2 is not on PATH")
	if got := p.dropIns(); got != "both" {
		t.Errorf("with the named one: %q", got)
	}
}

func TestInstallKataErrors(t *testing.T) {
	p := newKataSite(t)
	p.install("--kata-agent=false").want(t, console.Usage, "", "--kata-agent")
	p.install("--kata", "runc").want(t, console.Usage, "", "none of them is Kata's")
	p.install("--kata", "--kata-agent=false", "--kata-runtime=false").want(t, console.Usage, "", "nothing to turn on")
	p.install("--kata", "kata-fc").want(t, console.Nothing, "", "configuration-fc.toml")
	p.install("--kata", "--kata-config", "/nonexistent.toml").want(t, console.Failure, "", "/nonexistent.toml")
	empty := t.TempDir()
	p.install("--kata", "--kata-root", empty).want(t, console.Nothing, "", filepath.Join(empty, "etc/kata-containers"))

	// All obstacles are known before anything is done.
	p.put(kataQEMU+kataDropIn, "[runtime]\n")
	p.install("--kata").want(t, console.Failure, "", "not shimtrace's")
	if got := p.names(); got != "" {
		t.Errorf("installed half: %s", got)
	}
}

// TestInstallKataEndpoint: the endpoint is the configured one, and Kata is not pointed
// to one without a listener.
func TestInstallKataEndpoint(t *testing.T) {
	p := newKataSite(t)
	file := filepath.Join(t.TempDir(), "config.toml")
	run := func(text string, args ...string) result {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		env := map[string]string{"PATH": p.inner, "SHIMTRACE_CONFIG": file}
		return command(t, env, append([]string{"install", "--bindir", p.bin_, "--shim", p.shim(), "--kata-root", p.root, "--kata"}, args...)...)
	}
	run("[jaeger]\nlisten = \"[::1]:4711\"\n").want(t, console.OK, "write", "")
	if got := p.read(kataQEMU + kataDropIn); !strings.Contains(got, `jaeger_endpoint = "http://[::1]:4711/api/traces"`) {
		t.Errorf("the drop-in has:\n%s", got)
	}
	run("[jaeger]\nreceive = \"off\"\n").want(t, console.Failure, "", "--kata-runtime=false")
	run("[jaeger]\nreceive = \"off\"\n", "--kata-runtime=false").want(t, console.OK, "write", "")
	run("[agent]\nreceive = \"off\"\n").want(t, console.Failure, "", "--kata-agent=false")
	// A shim that the configuration names needs no advice.
	r := run("[runtime.kata-qemu]\nshim = \"/opt/kata/bin/containerd-shim-kata-v2\"\n")
	if r.want(t, console.OK, "[runtime.kata-clh-runtime-rs]\nshim", ""); strings.Contains(r.stdout, "[runtime.kata-qemu]") {
		t.Errorf("advice for what is configured:\n%s", r.stdout)
	}
}

// TestInstallKataForeignPort: Kata is not made to post to another user; a port that
// users could open is noted.
func TestInstallKataForeignPort(t *testing.T) {
	p := newKataSite(t)
	at := hosttest.ListenAs(t, hosttest.Nobody).Addr().String()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[jaeger]\nlisten = %q\n", at), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) result {
		t.Helper()
		env := map[string]string{"PATH": p.inner, "SHIMTRACE_CONFIG": file}
		return command(t, env, append([]string{"install", "--bindir", p.bin_, "--shim", p.shim(), "--kata-root", p.root, "--kata"}, args...)...)
	}
	r := run()
	r.want(t, console.Failure, "", at)
	r.want(t, console.Failure, "", "(shimtrace.test) of user 65534")
	r.want(t, console.Failure, "", "--kata-runtime=false")
	if got, links := p.dropIns(), p.names(); got != "" || links != "" {
		t.Errorf("installed half: %q, %s", got, links)
	}
	run("--kata-runtime=false").want(t, console.OK, "write", "")
	run("--force").want(t, console.OK, "write", "")
	if err := os.WriteFile(file, []byte("[jaeger]\nlisten = \"127.0.0.1:65533\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run().want(t, console.OK, "every user of this host may open port 65533", "")
	var out installed
	if r := run("--json"); json.Unmarshal([]byte(r.stdout), &out) != nil || len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "65533") {
		t.Errorf("for scripts:\n%s", r.stdout)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if r := p.install("--kata"); strings.Contains(r.stdout, "every user") {
		t.Errorf("the port that is configured by default:\n%s", r.stdout)
	}
	reliability.Row(t, reliability.Fault{
		Area: "Local users", Fault: "another user has the endpoint's port when the runtimes' tracing is to be turned on",
		Pod: "nothing", Lost: "nothing: `install --kata` refuses, and names process and user",
	})
}

// TestInstallKataOld: for versions without drop-ins, the lines are printed.
func TestInstallKataOld(t *testing.T) {
	p := newKataSite(t)
	p.put("opt/kata/VERSION", "2.4.3\n")
	r := p.install("--kata")
	r.want(t, console.OK, "Kata before 2.5 reads no drop-ins", "")
	r.want(t, console.OK, "\n  [agent.kata]\n  enable_tracing = true\n\n  [runtime]\n", "")
	if got := p.dropIns(); got != "" {
		t.Errorf("drop-ins: %q", got)
	}
}

func TestInstallKataJSON(t *testing.T) {
	p := newKataSite(t)
	var out installed
	r := p.install("--kata", "--json", "kata-qemu")
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil {
		t.Fatalf("%v: %s%s", err, r.stdout, r.stderr)
	}
	if len(out.Kata) != 1 || out.Kata[0].Action != "write" || len(out.Kata[0].Configs) != 1 || out.Kata[0].Configs[0].Runtime != "go" ||
		len(out.Runtimes) != 1 || out.Runtimes[0].Shim != "/opt/kata/bin/containerd-shim-kata-v2" {
		t.Errorf("got %+v", out)
	}
}
