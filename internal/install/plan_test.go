package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUninstallInUse: the shim of running sandboxes stays, since containerd needs it to
// end them.
func TestUninstallInUse(t *testing.T) {
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{shimName, relayName, toolName} {
		if err := (step{Action: actionCopy, Path: filepath.Join(bin, program), Source: self}).do(); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"containerd-shim-runc-traced-v2", "containerd-shim-runc-traced"} {
		if err := os.Symlink(shimName, filepath.Join(bin, link)); err != nil {
			t.Fatal(err)
		}
	}
	proc, relay := t.TempDir(), filepath.Join(bin, relayName)
	for pid, exe := range map[string]string{"17": relay, "18": relay + " (deleted)", "19": "/bin/sh", "20": relay} {
		if err := os.MkdirAll(filepath.Join(proc, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(exe, filepath.Join(proc, pid, "exe")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(proc, "20", "cmdline"), []byte(relay+"\x00-state-dir\x00/x\x00guard\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := &installer{opts: Options{BinDir: bin}, proc: proc}
	if _, err := in.planUninstall(nil); err == nil || !strings.Contains(err.Error(), "17, 18") {
		t.Errorf("got %v, want an error that names 17 and 18", err)
	}
	in.opts.Force = true
	if steps, err := in.planUninstall(nil); err != nil || len(steps) != 5 {
		t.Errorf("with force: %v, %v", steps, err)
	}
}
