package shim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/disktest"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// hangTime is when a test says that something hangs. containerd gives delete 5 s.
const hangTime = 30 * time.Second

// shimHost is what containerd's commands find on a host: the shim, built, and an inner
// one that is a script.
type shimHost struct {
	t       *testing.T
	program string
	bundle  string
	cfg     config.Config
}

func newShimHost(t *testing.T, journalDir, inner string) *shimHost {
	t.Helper()
	return newShimHostAt(t, filepath.Join(t.TempDir(), "state"), journalDir, inner)
}

func newShimHostAt(t *testing.T, stateDir, journalDir, inner string) *shimHost {
	t.Helper()
	return newShimHostOf(t, "fake", stateDir, journalDir, inner, "")
}

// newShimHostOf has the inner shim's name, and further lines of the configuration.
func newShimHostOf(t *testing.T, name, stateDir, journalDir, inner, more string) *shimHost {
	t.Helper()
	dir := t.TempDir()
	h := &shimHost{t: t, program: filepath.Join(dir, "containerd-shim-"+name+"-traced-v2"), bundle: filepath.Join(dir, "bundle")}
	if err := os.Symlink(shimtest.Program(t), h.program); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("containerd-shim-"+name+"-v2", "#!/bin/sh\n"+inner+"\n", 0o700)
	if err := os.Mkdir(h.bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	write("bundle/config.json", `{"annotations":{"io.kubernetes.cri.sandbox-name":"web"}}`, 0o600)
	text := fmt.Sprintf("[relay]\nstate_dir = %q\nready_timeout = \"30s\"\n[journal]\ndir = %q\n", stateDir, journalDir) + more
	t.Setenv(config.PathEnv, write("config.toml", text, 0o600))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var report config.Report
	if h.cfg, report = config.Load(name, os.Getenv); report.Err() != nil {
		t.Fatal(report.Err())
	}
	return h
}

// run runs the shim as containerd does: it waits for its end, and for nobody else to
// have its output open.
func (h *shimHost) run(action string) (out string, took time.Duration, err error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), hangTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.program, "-namespace", "k8s.io", "-id", "c1", "-bundle", h.bundle, action)
	cmd.Dir = h.bundle
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	began := time.Now()
	err = cmd.Run()
	if ctx.Err() != nil {
		h.t.Fatalf("%s hangs", action)
	}
	return stdout.String(), time.Since(began), err
}

// settle waits until nobody works for the container any more.
func (h *shimHost) settle() {
	h.t.Helper()
	shimtest.Eventually(h.t, "all processes have ended", func() bool {
		return len(testkit.Processes(testkit.With(h.bundle))) == 0
	})
}

func (h *shimHost) leaveState() {
	st := state.State{
		Version: state.Version, Trace: state.NewTraceContext(export.NewRoot(context.Background(), h.cfg.Trace)),
		Started: time.Now(), Sandbox: "c1", InnerSock: "/run/none.sock", RelaySock: "/run/none2.sock",
	}
	if err := st.Write(filepath.Join(h.bundle, state.File)); err != nil {
		h.t.Fatal(err)
	}
}

const answeringInner = `for last; do :; done
case "$last" in
start) echo no >&2; exit 7;;
delete) echo answer; exit 0;;
esac`

// TestFrozenJournal: what containerd waits for does not wait for the journal's disk,
// and what it would have written is there when the disk is back.
func TestFrozenJournal(t *testing.T) {
	dir, freeze, thaw := disktest.Ext4(t)
	dir = filepath.Join(dir, "journal")
	h := newShimHost(t, dir, answeringInner)
	h.leaveState()
	h.run("delete") // with a disk that works
	shimtest.Eventually(t, "a delete's spans are in the journal", func() bool {
		return slices.Contains(shimtest.SpanNames(dir), names.ShimDelete)
	})
	freeze()
	for range 3 {
		if out, took, err := h.run("delete"); out != "answer\n" || err != nil {
			t.Errorf("delete: %q, %v after %v", out, err, took)
		}
		if _, took, err := h.run("start"); err == nil || err.Error() != "exit status 7" {
			t.Errorf("start: %v after %v", err, took)
		}
	}
	thaw()
	shimtest.Eventually(t, "the spans of all are in the journal", func() bool {
		count := make(map[string]int)
		for _, name := range shimtest.SpanNames(dir) {
			count[name]++
		}
		return count[names.ShimDelete] == 4 && count[names.ShimStart] == 3 && count[names.SandboxStart] == 3
	})
	h.settle()
	reliability.Row(t, reliability.Fault{
		Area:  "Hangs",
		Fault: "the journal's file system is frozen (fsfreeze) while containers are deleted and fail to start",
		Pod:   "delete and start answer as the inner shim did, up to half a second later",
		Lost:  "nothing: it is written once the file system is thawed",
	})
}

// TestHungJournal: the same on a file system that answers nothing at all.
func TestHungJournal(t *testing.T) {
	dir, release := disktest.Hung(t)
	h := newShimHost(t, dir, answeringInner)
	h.leaveState()
	for range 3 {
		if out, took, err := h.run("delete"); out != "answer\n" || err != nil {
			t.Errorf("delete: %q, %v after %v", out, err, took)
		}
		if _, took, err := h.run("start"); err == nil || err.Error() != "exit status 7" {
			t.Errorf("start: %v after %v", err, took)
		}
	}
	release()
	h.settle()
}

// TestHungStateDirectory: without an answer from there nothing is traced, and that is all.
func TestHungStateDirectory(t *testing.T) {
	dir, release := disktest.Hung(t)
	address := filepath.Join(t.TempDir(), "inner")
	inner := fmt.Sprintf("for last; do :; done\ncase \"$last\" in\nstart) echo unix://%s;;\ndelete) echo answer;;\nesac", address)
	defer shimtest.Listen(t, address).Close()
	h := newShimHostAt(t, dir, t.TempDir(), inner)
	h.leaveState()
	for range 2 {
		if out, took, err := h.run("start"); out != "unix://"+address+"\n" || err != nil {
			t.Errorf("start: %q, %v after %v", out, err, took)
		}
		if out, took, err := h.run("delete"); out != "answer\n" || err != nil {
			t.Errorf("delete: %q, %v after %v", out, err, took)
		}
	}
	release()
	h.settle()
	reliability.Row(t, reliability.Fault{
		Area:  "Hangs",
		Fault: "the state directory's file system answers nothing",
		Pod:   "start and delete take up to a second longer",
		Lost:  "everything of the sandboxes that start then; the log says so",
	})
}
