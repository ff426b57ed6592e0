package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/testkit"
)

const proc = Proc("/proc")

// sleeper starts a program that waits, under a name of its own.
func sleeper(t *testing.T, argv ...string) *exec.Cmd {
	t.Helper()
	program, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "1000")
	cmd.Args = append(argv, "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func TestProcess(t *testing.T) {
	self, err := proc.Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file, err := FileOf(exe)
	if err != nil || self.Exe != file {
		t.Errorf("it executes %v, want %v, %v", self.Exe, file, err)
	}
	if !self.RunsAs(uint32(os.Geteuid())) || self.RunsAs(12345) {
		t.Errorf("users %v", self.Users)
	}
	cmd := sleeper(t, "a name ) with) 7 (parentheses")
	other, err := proc.Process(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if other.Start < self.Start || other.PIDNamespace != self.PIDNamespace || other.Exe == self.Exe {
		t.Errorf("%+v beside %+v", other, self)
	}
	// A program's start is reported before the kernel has put its arguments down.
	var args [][]byte
	testkit.Until(t, "its arguments", func() bool { args = proc.Args(cmd.Process.Pid); return len(args) > 0 })
	if len(args) != 2 || string(args[0]) != cmd.Args[0] {
		t.Errorf("its arguments are %q", args)
	}
	if !slices.Contains(proc.All(), cmd.Process.Pid) {
		t.Error("it is not among all")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := proc.Process(cmd.Process.Pid); !errors.Is(err, ErrGone) {
		t.Errorf("gone: %v", err)
	}
}

// TestStartBehindAnyName: a process's name may look like the rest of the line.
func TestStartBehindAnyName(t *testing.T) {
	fields := "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1 1"
	for text, want := range map[string]uint64{
		"5 (sh) " + fields:                 777,
		"5 (a) S 1 (b)) " + fields:         777,
		"5 (sh) S 1 2":                     0,
		"":                                 0,
		"5 sh S":                           0,
		strings.Repeat("x", 2*maxStat):     0,
		"5 (sh) " + fields[:len(fields)-9]: 0,
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "5"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "5", "stat"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Proc(dir).Start(5)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}

// TestStarted: it is between two moments that the test knows of, within a clock tick.
func TestStarted(t *testing.T) {
	before := time.Now()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	after := time.Now()
	p, err := proc.Process(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	const tick = 20 * time.Millisecond
	if at := p.Started(); at.Before(before.Add(-tick)) || at.After(after.Add(tick)) {
		t.Errorf("started at %v, between %v and %v", at, before, after)
	}
}

// TestDescendants: all descendants, and no other process.
func TestDescendants(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 60 & echo; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	self, err := proc.Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var shell Process
	depth := map[int]bool{}
	for _, p := range proc.Descendants(self) {
		if p.PID == cmd.Process.Pid {
			shell = p
		}
		depth[p.PID] = true
	}
	below := proc.Descendants(shell)
	if shell.PID == 0 || len(below) != 1 || below[0].Parent != shell.PID || !depth[below[0].PID] {
		t.Errorf("the shell %+v, below it %+v", shell, below)
	}
	for _, p := range below {
		if p.PID == self.PID {
			t.Error("we descend from our child")
		}
	}
	// A pid with another start is nobody's ancestor.
	shell.Start--
	if got := proc.Descendants(shell); got != nil {
		t.Errorf("a process that is no more has %+v", got)
	}
}
