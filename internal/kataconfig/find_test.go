package kataconfig

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/tomltree"
)

func byHandler(configs []Config, handler string) Config {
	i := slices.IndexFunc(configs, func(c Config) bool { return slices.Contains(c.Handlers(), handler) })
	if i < 0 {
		return Config{}
	}
	return configs[i]
}

func TestFind(t *testing.T) {
	root := build(t, static())
	configs := find(t, root)
	if len(configs) != 3 {
		t.Fatalf("found %v", configs)
	}
	qemu := byHandler(configs, "kata-qemu")
	if qemu.File != filepath.Join(root, opt, "configuration-qemu.toml") || qemu.Runtime != "go" || qemu.Version != "3.20.0" ||
		!slices.Equal(qemu.Handlers(), []string{"kata-qemu", "kata"}) || qemu.Deployed() {
		t.Errorf("got %+v", qemu)
	}
	if db := byHandler(configs, "kata-dragonball"); db.Runtime != "rust" || len(db.Names) != 2 {
		t.Errorf("got %+v", db)
	}
}

func TestFindDeployed(t *testing.T) {
	root := build(t, deployed())
	configs := find(t, root)
	if len(configs) != 4 {
		t.Fatalf("found %v", configs)
	}
	for handler, want := range map[string]struct{ file, shim, version string }{
		"kata":                {opt + "runtimes/qemu/configuration-qemu.toml", "opt/kata/bin/containerd-shim-kata-v2", "4.1.0"},
		"kata-qemu":           {opt + "runtimes/qemu/configuration-qemu.toml", "opt/kata/bin/containerd-shim-kata-v2", "4.1.0"},
		"kata-clh-runtime-rs": {rust + "runtimes/clh-runtime-rs/configuration-clh-runtime-rs.toml", "opt/kata/runtime-rs/bin/containerd-shim-kata-v2", "4.1.0"},
		"kata-mine":           {opt + "custom-runtimes/kata-mine/configuration-qemu.toml", "opt/kata/bin/containerd-shim-kata-v2", "4.1.0"},
		"kata-fc-second":      {"opt/kata-second/" + defaults + "/runtimes/fc/configuration-fc.toml", "", ""},
	} {
		c := byHandler(configs, handler)
		if want.shim != "" {
			want.shim = filepath.Join(root, want.shim)
		}
		if c.File != filepath.Join(root, want.file) || c.Shim != want.shim || c.Version != want.version || !c.Deployed() {
			t.Errorf("%s: got %+v, want %+v", handler, c, want)
		}
	}
}

// TestFindTwoInstallations: one at /opt/kata, another one with the suffix "dev", which
// kata-deploy appends to its handlers as well, and a third one at the operator's own
// prefix, known only from containerd's configuration.
func TestFindTwoInstallations(t *testing.T) {
	const dev, own = "opt/kata-dev/" + defaults + "/", "srv/vm/" + defaults + "/"
	root := build(t, map[string]string{
		opt + "runtimes/qemu/configuration-qemu.toml": goConfig,
		dev + "runtimes/qemu/configuration-qemu.toml": goConfig,
		own + "runtimes/qemu/configuration-qemu.toml": goConfig,
		"opt/kata/bin/containerd-shim-kata-v2":        "",
		"opt/kata-dev/bin/containerd-shim-kata-v2":    "",
		"srv/vm/bin/containerd-shim-kata-v2":          "",
	})
	configs := find(t, root)
	if len(configs) != 2 {
		t.Fatalf("found %v", configs)
	}
	for handler, prefix := range map[string]string{"kata-qemu": "opt/kata", "kata-qemu-dev": "opt/kata-dev"} {
		if c := byHandler(configs, handler); c.Shim != filepath.Join(root, prefix, "bin/containerd-shim-kata-v2") {
			t.Errorf("%s: got %+v", handler, c)
		}
	}
	more, err := Open(root, filepath.Join(root, own+"runtimes/qemu/configuration-qemu.toml"))
	if err != nil || more[0].Shim != filepath.Join(root, "srv/vm/bin/containerd-shim-kata-v2") {
		t.Errorf("got %+v, %v", more, err)
	}
}

// TestFindPlaces looks where distributions put Kata's configuration.
func TestFindPlaces(t *testing.T) {
	for _, dir := range []string{
		"etc/kata-containers",                // an operator's own
		"usr/share/defaults/kata-containers", // from source
		"usr/share/kata-containers/defaults", // Fedora, CentOS, OpenShift
		"usr/local/share/kata-containers",    // Talos' system extension
		"snap/kata-containers/current/usr/share/defaults/kata-containers",
		"run/current-system/sw/share/defaults/kata-containers", // NixOS
		"opt/confidential-containers/share/defaults/kata-containers",
		"opt/kata/share/defaults/kata-containers/runtime-rs",
	} {
		root := build(t, map[string]string{dir + "/configuration-qemu.toml": goConfig})
		if configs := find(t, root); len(configs) != 1 || !slices.Contains(configs[0].Handlers(), "kata-qemu") {
			t.Errorf("%s: found %v", dir, configs)
		}
	}
}

// TestFindGoesOn: an unreadable file is a note, and the others are found.
func TestFindGoesOn(t *testing.T) {
	root := build(t, map[string]string{
		opt + "configuration-qemu.toml":   "\xef\xbb\xbf" + goConfig,
		opt + "configuration-old.toml":    "[runtime\nbackup of",
		opt + "configuration.toml":        "-> configuration-gone.toml",
		opt + "configuration-secret.toml": "-> configuration-secret.toml",
	})
	configs, notes := Find(root)
	if len(configs) != 1 || !slices.Contains(configs[0].Handlers(), "kata-qemu") {
		t.Errorf("found %v", configs)
	}
	if len(notes) != 3 {
		t.Errorf("notes %q", notes)
	}
	changes, err := Plan(root, configs, both, false)
	if err != nil || len(changes) != 1 || changes[0].Action != write || len(changes[0].Configs) != 1 {
		t.Fatalf("%+v, %v", changes, err)
	}
	// An unreadable file beside it is reported and stops nothing.
	if !slices.ContainsFunc(changes[0].Notes, func(n string) bool { return strings.Contains(n, "configuration-old.toml is not TOML") }) {
		t.Errorf("notes %q", changes[0].Notes)
	}
}

// TestOpenLinks: links are resolved as if the root were "/", and must not lead out of
// it.
func TestOpenLinks(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "configuration.toml")
	if err := os.WriteFile(outside, []byte(goConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel("/", outside)
	if err != nil {
		t.Fatal(err)
	}
	root := build(t, map[string]string{
		"real.toml": goConfig, "inside.toml": "-> /real.toml", "loop.toml": "-> loop.toml", "gone.toml": "-> /none.toml",
		"outside.toml": "-> " + strings.Repeat("../", 40) + rel,
	})
	configs, err := Open(root, filepath.Join(root, "inside.toml"))
	if err != nil || configs[0].File != filepath.Join(root, "real.toml") {
		t.Errorf("got %+v, %v", configs, err)
	}
	for _, name := range []string{"loop.toml", "gone.toml", "outside.toml", "none.toml"} {
		_, err := Open(root, filepath.Join(root, name))
		wantError(t, err, "")
	}
	_, err = Open(root, filepath.Join(root, "outside.toml"))
	wantError(t, err, "leads out of "+root)
}

func TestOpenUnreadable(t *testing.T) {
	root := build(t, map[string]string{"bad.toml": "[runtime\n", "long.toml": strings.Repeat("# …\n", tomltree.MaxFile/4), "d/": ""})
	_, err := Open(root, filepath.Join(root, "bad.toml"), filepath.Join(root, "long.toml"), filepath.Join(root, "d"))
	wantError(t, err, "bad.toml is not TOML", "long.toml is longer", root+"/d")
}

func TestVersion(t *testing.T) {
	for text, want := range map[string]string{
		"4.1.0": "4.1.0", "3.2.0-rc0\n": "3.2.0-rc0", "3.8.0-12-gdeadbee": "3.8.0-12-gdeadbee", "": "", "unknown": "",
		"Kata Containers containerd shim (Golang): id: \"io.containerd.kata.v2\", version: 2.4.1, commit: 0ad6f05dee04-dirty": "2.4.1",
		"Kata Containers containerd shim (Rust): id: io.containerd.kata.v2, version: 3.20.0, commit: 9a7c5f4":                 "3.20.0",
	} {
		if got := parseVersion(text); got != want {
			t.Errorf("%q has version %q, got %q", text, want, got)
		}
	}
	for version, want := range map[string]bool{"": true, "2.4.3": false, "1.13.0": false, "2.5.0-rc0": true, "2.5.0": true, "3.0.0": true, "10.0.0": true} {
		if (Config{Version: version}).readsDropIns() != want {
			t.Errorf("does %s read drop-ins: %v", version, !want)
		}
	}
	shim := filepath.Join(t.TempDir(), "shim")
	script := "#!/bin/sh\n[ \"$*\" = --version ] && echo 'Kata (Golang): id: x, version: 3.4.0, commit: y'\n"
	if err := os.WriteFile(shim, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := versionOf("/nonexistent", shim, "/"); got != "3.4.0" {
		t.Errorf("the shim says 3.4.0, got %q", got)
	}
	if got := versionOf("/nonexistent", shim, "/some/image"); got != "" {
		t.Errorf("an image's program was run: %q", got)
	}
}
