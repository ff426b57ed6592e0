package agent

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// TestCratesStillAgree remakes the output of integration/rust/golden: the expected values of
// the committed frames must equal the committed ones, and new frames must mean the same.
func TestCratesStillAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a Rust program: not in short mode")
	}
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		const missing = "cargo is missing: the golden frames are not checked against the crates that the agent uses; install Rust (rustup.rs)"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := filepath.Join("..", "..", "..", "integration", "rust", "golden")
	build := exec.Command(cargo, "build", "--release", "--locked", "--quiet")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cargo build in %s: %v\n%s", dir, err, out)
	}
	golden := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, "target", "release", "golden"), args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("golden %v: %v\n%s", args, err, &stderr)
		}
		return out
	}
	expect := func(frames []byte, args ...string) []byte {
		t.Helper()
		file := filepath.Join(t.TempDir(), "frames")
		if err := os.WriteFile(file, frames, 0o600); err != nil {
			t.Fatal(err)
		}
		return golden(append([]string{"expect", file}, args...)...)
	}

	for _, name := range []string{capture328, capture410, capture410rs, goldenBin, goldenJSON} {
		if got := expect(testdata(t, name+".frames")); !bytes.Equal(got, testdata(t, name+".expected")) {
			t.Errorf("%s: the crates read the frames differently; see integration/rust/golden/remake.sh", name)
		}
	}
	for name, encoding := range map[string]string{goldenBin: "bincode", goldenJSON: "json"} {
		frames := golden("frames", encoding)
		if encoding == "bincode" { // serde_json's errors have positions, which depend on the order
			if !bytes.Equal(expect(frames), testdata(t, name+".expected")) {
				t.Errorf("%s: new frames mean something else", name)
			}
			if !bytes.Equal(expect(frames, "all"), testdata(t, name+".expected-all")) {
				t.Errorf("%s: new frames mean something else with all attributes kept", name)
			}
		}
		checkExpected(t, frames, readExpected(t, testdata(t, name+".expected")), Options{Options: span.Options{MaxValue: 1 << 20, MaxCost: 1 << 30}})
	}
}
