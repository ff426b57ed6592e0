package kataconfig

import (
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRestore: after removal the tree is as before, byte for byte, and in between only
// shimtrace's files were added.
func TestRestore(t *testing.T) {
	for layout, files := range map[string]map[string]string{"static": static(), "deployed": deployed()} {
		t.Run(layout, func(t *testing.T) {
			root := build(t, files)
			before := snapshot(t, root)
			changes := turnOn(t, root, both)
			for _, c := range changes {
				if c.Action != write {
					t.Errorf("%s: %s", c.Action, c.Path)
				}
			}
			// Only the drop-ins are new.
			for _, c := range changes {
				if err := os.Remove(c.Path); err != nil {
					t.Fatal(err)
				}
				if c.made {
					if err := os.Remove(filepath.Dir(c.Path)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := snapshot(t, root); got != before {
				t.Errorf("beside drop-ins something else was changed:\n%s", got)
			}
			turnOn(t, root, both)
			if removed := turnOff(t, root); len(removed) != len(changes) {
				t.Errorf("wrote %d drop-ins, removed %d", len(changes), len(removed))
			}
			if got := snapshot(t, root); got != before {
				t.Errorf("left behind:\n%s\nbefore:\n%s", got, before)
			}
			if again := turnOff(t, root); len(again) != 0 {
				t.Errorf("removed again: %v", again)
			}
		})
	}
}

// TestRestoreNotEmpty: other files in the created directory stay.
func TestRestoreNotEmpty(t *testing.T) {
	root := build(t, static())
	turnOn(t, root, both)
	theirs := filepath.Join(root, opt, "config.d/90-mine.toml")
	if err := os.WriteFile(theirs, []byte("[runtime]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	turnOff(t, root)
	if names := dropIns(t, filepath.Join(root, opt, "configuration.toml")); !slices.Equal(names, []string{theirs}) {
		t.Errorf("left: %v", names)
	}
}

// TestRemoveWithoutConfig: a drop-in whose configuration is gone is found.
func TestRemoveWithoutConfig(t *testing.T) {
	root := build(t, map[string]string{"etc/kata-containers/configuration.toml": goConfig})
	turnOn(t, root, both)
	if err := os.Remove(filepath.Join(root, "etc/kata-containers/configuration.toml")); err != nil {
		t.Fatal(err)
	}
	turnOff(t, root)
	if got := snapshot(t, filepath.Join(root, "etc/kata-containers")); strings.Contains(got, dirName) {
		t.Errorf("left behind:\n%s", got)
	}
}

func TestPlanAgain(t *testing.T) {
	root := build(t, static())
	turnOn(t, root, both)
	before := snapshot(t, root)
	for _, c := range turnOn(t, root, both) {
		if c.Action != keep {
			t.Errorf("the second time: %s %s", c.Action, c.Path)
		}
	}
	if snapshot(t, root) != before {
		t.Error("the second time changed something")
	}
	// Other settings replace the file, which is still removed with its directory.
	other := Settings{Agent: true}
	for _, c := range turnOn(t, root, other) {
		if content, err := os.ReadFile(c.Path); c.Action != write || err != nil || strings.Contains(string(content), "jaeger") {
			t.Errorf("%s: %s %v", c.Action, content, err)
		}
	}
	turnOff(t, root)
	if got := snapshot(t, root); strings.Contains(got, dirName) {
		t.Errorf("left behind:\n%s", got)
	}
}

// TestPlanForeign: a file that shimtrace did not write, or that was changed, stays
// unless forced.
func TestPlanForeign(t *testing.T) {
	for name, tamper := range map[string]func(ours string) string{
		"is there and not shimtrace's": func(string) string { return "[runtime]\n" },
		"was changed since":            func(ours string) string { return ours + "# and a line\n" },
	} {
		t.Run(name, func(t *testing.T) {
			root := build(t, map[string]string{"etc/kata-containers/configuration.toml": goConfig})
			path := turnOn(t, root, both)[0].Path
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tamper(string(content))), 0o600); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, root)
			_, err = Plan(root, find(t, root), Settings{Agent: true}, false)
			wantError(t, err, path, name, "--force")
			_, err = PlanRemoval(nil, FindDropIns(root), false)
			wantError(t, err, path, name, "--force removes it")
			if snapshot(t, root) != before {
				t.Error("a plan changed something")
			}
			changes, err := Plan(root, find(t, root), both, true)
			if err != nil {
				t.Fatal(err)
			}
			do(t, changes)
			if w, err := inspect(path); err != nil || !w.ours || w.changed {
				t.Errorf("forced: %+v, %v", w, err)
			}
		})
	}
}

// TestPlanFormerPort: a drop-in with the port of former versions counts as shimtrace's:
// it is updated and removed.
func TestPlanFormerPort(t *testing.T) {
	former := Settings{Agent: true, Runtime: true, Endpoint: "http://127.0.0.1:14268/api/traces"}
	root := build(t, deployed())
	turnOn(t, root, former)
	for _, c := range turnOn(t, root, both) {
		if c.Action != write || len(c.Notes) > 0 {
			t.Errorf("got %+v", c)
		}
		content, err := os.ReadFile(c.Path)
		if err != nil || !strings.Contains(string(content), endpoint) || strings.Contains(string(content), "14268") {
			t.Errorf("%s has, %v:\n%s", c.Path, err, content)
		}
	}
	turnOn(t, root, former)
	paths := FindDropIns(root)
	changes, err := PlanRemoval(nil, paths, false)
	if err != nil || len(changes) != len(paths) || len(paths) == 0 {
		t.Fatalf("got %v, %v for %v", changes, err, paths)
	}
	do(t, changes)
	if left := FindDropIns(root); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestPlanOwnJaeger: an operator's collector keeps the runtime's spans.
func TestPlanOwnJaeger(t *testing.T) {
	const theirs = "[runtime]\nenable_tracing = true\njaeger_endpoint = \"http://jaeger.example:276/api/traces\"\n"
	files := deployed()
	files[opt+"runtimes/qemu/config.d/60-jaeger.toml"] = theirs
	root := build(t, files)
	_, err := Plan(root, find(t, root), both, false)
	wantError(t, err, "jaeger.example:276", "--kata-runtime=false")
	if _, err := Plan(root, find(t, root), Settings{Agent: true}, false); err != nil {
		t.Errorf("for the agents alone: %v", err)
	}
	if _, err := Plan(root, find(t, root), both, true); err != nil {
		t.Errorf("with force: %v", err)
	}
	// The same address by another name is no conflict, nor is an unused endpoint.
	for _, content := range []string{
		strings.Replace(theirs, "jaeger.example", "localhost", 1),
		strings.Replace(theirs, "jaeger.example", "[::1]", 1),
		strings.Replace(theirs, "enable_tracing = true", "enable_tracing = false", 1),
		"[runtime]\nenable_tracing = true\n",
	} {
		files[opt+"runtimes/qemu/config.d/60-jaeger.toml"] = content
		root := build(t, files)
		if _, err := Plan(root, find(t, root), both, false); err != nil {
			t.Errorf("%v with:\n%s", err, content)
		}
	}
}

// TestPlanOverruled: the operator's later drop-in wins, and a note says so.
func TestPlanOverruled(t *testing.T) {
	for content, want := range map[string]bool{
		"[runtime]\nenable_tracing = false\n":                  true,
		"[agent.kata]\nenable_tracing = false\n":               true,
		"[runtime]\njaeger_endpoint = \"http://else.where\"\n": true,
		"[runtime]\nenable_debug = true\n":                     false,
	} {
		files := static()
		files[opt+"config.d/90-mine.toml"] = content
		root := build(t, files)
		changes := turnOn(t, root, both)
		said := slices.ContainsFunc(changes, func(c Change) bool { return len(c.Notes) > 0 })
		if said != want {
			t.Errorf("with a later drop-in of %q: notes %v", content, changes)
		}
	}
}

// TestPlanNeighbours: other configurations in the directory are affected too.
func TestPlanNeighbours(t *testing.T) {
	files := static()
	root := build(t, files)
	named, err := Open(root, filepath.Join(root, opt, "configuration-clh.toml"))
	if err != nil {
		t.Fatal(err)
	}
	changes, err := Plan(root, named, both, false)
	if err != nil || len(changes) != 1 || len(changes[0].Configs) != 2 {
		t.Fatalf("got %+v, %v", changes, err)
	}
	files[opt+"configuration-clh.toml"] = strings.Replace(goConfig, "agent.kata", "agent.other", 1)
	root = build(t, files)
	_, err = Plan(root, find(t, root), both, false)
	wantError(t, err, "agents of other names")
}

func TestPlanAgents(t *testing.T) {
	for agents, want := range map[string]string{
		"[agent.kata]\n":                   "[agent.kata]\n",
		"":                                 "[agent.kata]\n",
		"[agent.some-one]\n":               "[agent.some-one]\n",
		"[runtime]\nagent_name = \"x1\"\n": "[agent.x1]\n",
	} {
		root := build(t, map[string]string{"etc/kata-containers/configuration.toml": agents})
		if lines := turnOn(t, root, both)[0].Lines; !strings.HasPrefix(lines, want) {
			t.Errorf("for %q: %s", agents, lines)
		}
	}
	root := build(t, map[string]string{"etc/kata-containers/configuration.toml": "[agent.\"a b\"]\n"})
	_, err := Plan(root, find(t, root), both, false)
	wantError(t, err, `"a b"`)
}

// TestPlanOld: Kata before 2.5 reads no drop-ins and gets none.
func TestPlanOld(t *testing.T) {
	files := static()
	files["opt/kata/VERSION"] = "2.4.3"
	root := build(t, files)
	before := snapshot(t, root)
	for _, c := range turnOn(t, root, both) {
		if c.Action != ByHand || !strings.Contains(c.Lines, endpoint) {
			t.Errorf("got %+v", c)
		}
	}
	if snapshot(t, root) != before {
		t.Error("something was changed")
	}
}

// TestPlanUnwritable: obstacles to writing are known before anything is done.
func TestPlanUnwritable(t *testing.T) {
	files := map[string]string{"etc/kata-containers/configuration.toml": goConfig}
	asFile := maps.Clone(files)
	asFile["etc/kata-containers/config.d"] = "a file"
	root := build(t, asFile)
	_, err := Plan(root, find(t, root), both, false)
	wantError(t, err, "config.d")

	withDir := maps.Clone(files)
	withDir["etc/kata-containers/config.d/"] = ""
	for name, readOnly := range map[string]struct {
		files map[string]string
		dir   string
	}{
		"directory above": {files, "etc/kata-containers"},
		"directory":       {withDir, "etc/kata-containers/config.d"},
	} {
		t.Run(name, func(t *testing.T) {
			root := build(t, readOnly.files)
			dir := filepath.Join(root, readOnly.dir)
			// All users may enter, none may write.
			for path, mode := range map[string]os.FileMode{filepath.Dir(root): 0o755, dir: 0o555} {
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
			configs := find(t, root)
			unprivileged(t)
			_, err := Plan(root, configs, both, false)
			wantError(t, err, dir+" can't be written to")
		})
	}
}

// unprivileged runs the rest of the test as a user to whom the file system's
// permissions apply.
func unprivileged(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	runtime.LockOSThread()
	if _, err := unix.SetfsuidRetUid(65534); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = unix.SetfsuidRetUid(0)
		runtime.UnlockOSThread()
	})
}

// TestWriteFails: an incomplete write leaves nothing, least of all in config.d.
func TestWriteFails(t *testing.T) {
	root := build(t, map[string]string{"etc/kata-containers/configuration.toml": goConfig})
	changes, err := Plan(root, find(t, root), both, false)
	if err != nil {
		t.Fatal(err)
	}
	// A nonempty directory cannot be replaced by a file.
	if err := os.MkdirAll(filepath.Join(changes[0].Path, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, root)
	wantError(t, changes[0].Do(), fileName)
	if got := snapshot(t, root); got != before {
		t.Errorf("left behind:\n%s", got)
	}
}

// TestLinkedDirectory: config.d may be elsewhere.
func TestLinkedDirectory(t *testing.T) {
	root := build(t, map[string]string{
		"etc/kata-containers/configuration.toml": goConfig, "etc/kata-containers/config.d": "-> ../../srv/kata", "srv/kata/": "",
	})
	before := snapshot(t, root)
	turnOn(t, root, both)
	if got := asGo(t, filepath.Join(root, "etc/kata-containers/configuration.toml")); !got.Runtime.Tracing {
		t.Error("it had no effect")
	}
	turnOff(t, root)
	if got := snapshot(t, root); got != before {
		t.Errorf("left behind:\n%s", got)
	}
}
