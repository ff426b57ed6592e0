package kataconfig

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
		"kata-fc":             {"opt/kata-second/" + defaults + "/runtimes/fc/configuration-fc.toml", "", ""},
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

// TestOpenLinks: a link leads to where it will once the root is "/", and not out.
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
	root := build(t, map[string]string{"bad.toml": "[runtime\n", "long.toml": strings.Repeat("# …\n", maxFile/4), "d/": ""})
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
