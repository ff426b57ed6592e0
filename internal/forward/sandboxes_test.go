package forward

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
)

func TestSandboxFinder(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"kata/a/root", "kata/b", "kata/firecracker/c/root", "vm/d", "flat"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"flat/vm-e.sock", "flat/vm-e.sock_10240", "flat/vm-.sock", "flat/other"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A VM from Kata's factory, which the sandbox f got.
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "vm", "5a0f"), 0o700), os.Symlink(filepath.Join(dir, "vm", "5a0f"), filepath.Join(dir, "vm", "f"))); err != nil {
		t.Fatal(err)
	}
	var patterns []listen.Pattern
	for _, p := range []string{
		"kata/{sandbox}/root/kata.hvsock", "kata/firecracker/{sandbox}/root/kata.hvsock", "vm/{sandbox}/clh.sock",
		"flat/vm-{sandbox}.sock", "nowhere/{sandbox}/x.sock",
	} {
		patterns = append(patterns, listen.Pattern{Path: filepath.Join(dir, p)})
	}
	found := newSandboxFinder(patterns).find()
	if got := strings.Join(slices.Sorted(maps.Keys(found)), " "); got != "a b c d e f" {
		t.Errorf("found %s", got)
	}
	if again := newSandboxFinder(patterns).find(); !maps.Equal(again, found) {
		t.Errorf("nothing has changed, and %v became %v", found, again)
	}
	// As if a VM of the same name followed at once; the old directory is kept, else the
	// new one might get its inode number.
	b := filepath.Join(dir, "kata", "b")
	if err := os.Rename(b, filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(b, 0o700); err != nil {
		t.Fatal(err)
	}
	if again := newSandboxFinder(patterns).find(); again["b"] == found["b"] || again["a"] != found["a"] {
		t.Errorf("another one came back: %v became %v", found, again)
	}
}

func TestOwnSandbox(t *testing.T) {
	for path, want := range map[string]fixedSocket{
		"/run/vc/vm/foo/clh.sock":                      {"foo", listen.Pattern{Path: "/run/vc/vm/{sandbox}/clh.sock"}},
		"/run/vc/firecracker/foo/root/kata.hvsock":     {"foo", listen.Pattern{Path: "/run/vc/firecracker/{sandbox}/root/kata.hvsock"}},
		"/run/kata/firecracker/foo/root/kata.hvsock":   {"foo", listen.Pattern{Path: "/run/kata/firecracker/{sandbox}/root/kata.hvsock"}},
		"/srv/vms/foo/my.sock":                         {"foo", listen.Pattern{Path: "/srv/vms/{sandbox}/my.sock"}},
		"/foo/my.sock":                                 {"foo", listen.Pattern{Path: "/{sandbox}/my.sock"}},
		"/my.sock":                                     {"my.sock", listen.Pattern{Path: "/{sandbox}"}},
		"/run/vc/vm/foo/bar/clh.sock":                  {"bar", listen.Pattern{Path: "/run/vc/vm/foo/{sandbox}/clh.sock"}},
		"/run/vc/firecracker/a/b/c/d/root/kata.hvsock": {"root", listen.Pattern{Path: "/run/vc/firecracker/a/b/c/d/{sandbox}/kata.hvsock"}},
	} {
		got := ownSandbox(path)
		if got.sandbox != want.sandbox || got.pattern.Path != want.pattern.Path {
			t.Errorf("%s: %+v", path, got)
		}
		if back := strings.ReplaceAll(got.pattern.Path, sandboxPlaceholder, got.sandbox); back != path {
			t.Errorf("%s became %s", path, back)
		}
	}
}
