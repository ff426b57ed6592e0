package traced

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/cri"
	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestInstalled: the tool installs shimtrace into a real containerd of each version, which
// had only runc: the handler is loaded, a pod is traced, doctor finds nothing wrong, and
// after uninstallation all is as before.
func TestInstalled(t *testing.T) {
	bin, err := Bin()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range rig.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			ours := filepath.Join(dir, "config.toml")
			if err := os.WriteFile(ours, []byte(Patient+"[journal]\ndir = \""+dir+"/journal\"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			target := filepath.Join(dir, "bin")
			if err := os.Mkdir(target, 0o755); err != nil {
				t.Fatal(err)
			}
			r := rig.Start(t, rig.Options{Version: v, Path: []string{target}, Env: []string{"SHIMTRACE_CONFIG=" + ours}})
			file := filepath.Join(r.Dir, "config.toml")
			try := func(program string, args ...string) (string, error) {
				cmd := r.Command(t.Context(), program, args...)
				cmd.Env = append(cmd.Env, "SHIMTRACE_CONFIG="+ours)
				cmd.Env[0] += ":" + target // PATH, as containerd's
				var said strings.Builder
				cmd.Stderr = &said
				out, err := cmd.Output()
				if err != nil {
					err = fmt.Errorf("%s: %w\n%s%s", args, err, out, &said)
				}
				return string(out), err
			}
			run := func(program string, args ...string) string {
				t.Helper()
				out, err := try(program, args...)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			tool := func(args ...string) string { t.Helper(); return run(filepath.Join(bin, "shimtrace"), args...) }
			restart := r.RestartCommand(t)
			before := state(t, file, target)

			common := []string{"install", "--bindir", target, "--containerd-config", file, "--restart-with", restart}
			if out := tool(append(common, "--dry-run", "runc")...); !strings.Contains(out, "\n+++ "+file) || state(t, file, target) != before {
				t.Errorf("a dry run changes something, or shows no diff:\n%s", out)
			}
			out := tool(append(common, "runc")...)
			if !strings.Contains(out, "its CRI has loaded: runc-traced") {
				t.Errorf("it says:\n%s", out)
			}
			if out := tool(append(common, "runc")...); strings.Contains(out, "write") || strings.Contains(out, "copy") {
				t.Errorf("the second time it says:\n%s", out)
			}

			pod, err := r.CRI().Run(t.Context(), cri.Pod{Name: "web", Runtime: runc, Logs: filepath.Join(r.Dir, "logs"), Cgroup: "/" + r.Name})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pod.Start(t.Context(), "app", image.Busybox, rig.Sleep...); err != nil {
				t.Fatal(err)
			}
			testkit.Until(t, "the pod's start to be in the journal", func() bool {
				out, err := try(filepath.Join(bin, "shimtrace"), "show", "default/web")
				return err == nil && strings.Contains(out, "sandbox start")
			})
			healthy(t, run(filepath.Join(target, "shimtrace"), "doctor", "--json", "--no-send"), file)
			if err := r.CRI().RemovePods(t.Context()); err != nil {
				t.Fatal(err)
			}

			for len(Find(r, Relay)) > 0 { // uninstallation refuses to take their program
				select {
				case <-t.Context().Done():
					t.Fatal(t.Context().Err())
				case <-time.After(20 * time.Millisecond):
				}
			}
			tool(append(common, "--uninstall")...)
			if after := state(t, file, target); after != before {
				t.Errorf("after uninstallation it is not as before:\n%s\n%s", before, after)
			}
			if _, err := r.CRI().Run(t.Context(), cri.Pod{Name: "gone", Runtime: runc, Logs: filepath.Join(r.Dir, "logs"), Cgroup: "/" + r.Name}); err == nil {
				t.Error("the handler is still there")
			}
		})
	}
}

// healthy checks that doctor finds no error, and the handler.
func healthy(t *testing.T, out, file string) {
	t.Helper()
	handler := false
	for line := range strings.Lines(out) {
		var f struct{ Check, Level, What, Where, Do string }
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if f.Level == "error" || f.Level == "warning" {
			t.Errorf("doctor finds: %s", line)
		}
		handler = handler || f.Check == "handlers" && f.Where == file && strings.Contains(f.What, "runc-traced is traced")
	}
	if !handler {
		t.Errorf("doctor does not find the handler:\n%s", out)
	}
}

// state is what installation changes: a file, and the names in a directory.
func state(t *testing.T, file, dir string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	all := string(text) + info.Mode().String()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all += " " + e.Name()
	}
	return all
}
