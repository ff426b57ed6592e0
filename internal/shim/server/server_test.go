package server

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shimtrace/shimtrace/internal/testkit"
)

// runShim runs a copy of the shell, or the very file, as a shim of the sandbox.
func runShim(t *testing.T, program string, uid uint32, args ...string) int {
	t.Helper()
	cmd := exec.Command(program, append([]string{"-c", "echo; read line"}, args...)...)
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	return runUntilTheEnd(t, cmd)
}

// runUntilTheEnd runs a command that says a line when it has become what it is to be, and
// then waits for the end of the test.
func runUntilTheEnd(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// TestFind: only the process that runs the inner shim's own file as our user
// serves a sandbox, whatever names and arguments others have.
func TestFind(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("root is needed, to act as another user")
	}
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := testkit.ShortDir(t) // which another user may enter
	inner := filepath.Join(dir, "containerd-shim-kata-v2")
	copied := filepath.Join(dir, "copy", "containerd-shim-kata-v2")
	if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{inner, copied} {
		if err := os.WriteFile(name, shell, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sandbox := "sandbox-" + filepath.Base(dir)
	const nobody = 65534
	runShim(t, inner, nobody, "-id", sandbox)                   // the shim itself, but nobody's
	runShim(t, copied, 0, "-id", sandbox)                       // of its name, not it
	runShim(t, inner, 0, "-id", "another", "-address", sandbox) // of another sandbox
	runShim(t, inner, 0, "-id", sandbox, "delete")              // its command line, not the server
	if p := Find(inner, sandbox, "/nowhere", 0); p.PID != 0 {
		t.Errorf("%+v is taken for the shim", p)
	}
	want := runShim(t, inner, 0, "-namespace", "k8s.io", "-id", sandbox)
	if p := Find(inner, sandbox, "/nowhere", 0); p.PID != want || p.Start == 0 {
		t.Errorf("found %+v, want %d", p, want)
	}
}

// TestFindOfScript: where the inner shim is a script around another program,
// its server is the process that has its socket. A listener of a stranger's at the same
// path, in a mount namespace of its own, is not.
func TestFindOfScript(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("root is needed, to act as another user")
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "containerd-shim-kata-v2")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec /bin/sh \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run := func(args ...string) int {
		cmd := exec.Command(script, append([]string{"-c", "echo; read line"}, args...)...)
		cmd.ExtraFiles = []*os.File{f}
		return runUntilTheEnd(t, cmd)
	}
	run("-id", "x", "start")
	if p := Find(script, "x", socket, 0); p.PID != 0 {
		t.Errorf("the start command is taken for the server: %+v", p)
	}
	want := run("-id", "x")
	if p := Find(script, "x", socket, 0); p.PID != want {
		t.Errorf("found %+v, want %d", p, want)
	}
	if p := Find(script, "x", filepath.Join(dir, "another"), 0); p.PID != 0 {
		t.Errorf("found %+v at a socket that is not there", p)
	}
	abstract, err := net.Listen("unix", "@"+socket)
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	if n := len(proc.UnixListeners("\x00" + socket)); n != 1 {
		t.Errorf("%d abstract sockets of that name", n)
	}
}

func TestServes(t *testing.T) {
	for line, want := range map[string]bool{
		"shim -namespace k8s.io -id x": true, "shim -id x -debug": true, "shim --id=x": true, "shim -id=x": true,
		"shim -namespace x -id y": false, "shim -id x start": false, "shim -id x delete": false, "shim x": false, "shim -id": false, "": false,
	} {
		var args [][]byte
		for field := range strings.FieldsSeq(line) {
			args = append(args, []byte(field))
		}
		if got := serves(args, "x"); got != want {
			t.Errorf("%q: %t", line, got)
		}
	}
}
