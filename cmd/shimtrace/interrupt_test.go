package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/shim/control"
)

// blockedCommands has for each command a command line that prints something, or waits
// for something that does not happen. Commands that catch signals have their own state.
func blockedCommands(t *testing.T) map[string][]string {
	state, _ := dummyRelays(t)
	journal := writeJournal(t, shown...)
	return map[string][]string{
		"install":        {"install", "--bindir", t.TempDir(), "--shim", "/bin/true", "containerd-shim-none-v2"},
		"list":           {"list", "--journal", journal},
		"show":           {"show", "--journal", journal},
		"show --follow":  {"show", "--follow", "--journal", journal},
		"on":             {"on", "all", "--state-dir", state},
		"off":            {"off", "all", "--state-dir", state},
		"status":         {"status", "--state-dir", state},
		"status --watch": {"status", "--watch", "--state-dir", state},
		"upgrade":        {"upgrade", "--state-dir", state, "--program", "/bin/true"},
		"ship":           {"ship", "--journal", journal, "--idle", "0s"},
		"receive":        {"receive", "--listen", "127.0.0.1:0"},
		"collect":        {"collect", "--listen", "127.0.0.1:0"},
		"forward":        {"forward", "--dry-run", "--listen", "unix://" + filepath.Join(openDir(t), "agent.sock")},
		"version":        {"version"},
		"doctor":         {"doctor", "--root", openDir(t)},
		"stats":          {"stats", "--journal", journal},
		"explain":        {"explain", "--journal", journal},
		"man":            {"man"}, // it writes files, and says only what is wrong
	}
}

// fullPipe returns the writing end of a full pipe without a reader.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	for page := make([]byte, 4096); ; {
		if _, err := unix.Write(fds[1], page); errors.Is(err, unix.EAGAIN) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.SetNonblock(fds[1], false); err != nil {
		t.Fatal(err)
	}
	w := os.NewFile(uintptr(fds[1]), "full pipe")
	t.Cleanup(func() { w.Close(); unix.Close(fds[0]) })
	return w
}

// inSystemCall reports whether a thread of the process is in that system call, with
// that first argument.
func inSystemCall(pid int, calls ...string) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		for _, call := range calls {
			if err == nil && strings.HasPrefix(string(text), call+" ") {
				return true
			}
		}
	}
	return false
}

// writing are the system calls of a process that writes on stdout or stderr.
var writing = []string{fmt.Sprintf("%d 0x1", unix.SYS_WRITE), fmt.Sprintf("%d 0x2", unix.SYS_WRITE)}

// interrupted sends the process SIGINT, which must end it.
func interrupted(t *testing.T, p *forwardProcess) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- p.cmd.Wait() }()
	select {
	case err := <-over:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			if status := exit.Sys().(syscall.WaitStatus); status.Signaled() && status.Signal() != syscall.SIGINT {
				t.Errorf("it ended by %v", status.Signal())
			}
		}
	case <-time.After(forwardPatience):
		t.Error("SIGINT does not end it")
		_ = p.cmd.Process.Kill()
		<-over
	}
}

// TestInterruptBlockedOutput: SIGINT ends every command whose output is blocked.
func TestInterruptBlockedOutput(t *testing.T) {
	blocked := blockedCommands(t)
	for _, c := range newApp(system()).Commands {
		t.Run(c.Name, func(t *testing.T) {
			args := blocked[c.Name]
			if args == nil {
				t.Fatalf("there is no command line for %s in this test", c.Name)
			}
			p := newTool(t, "", args...)
			p.cmd.Env = append(p.cmd.Env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1")
			full := fullPipe(t)
			p.cmd.Stdout, p.cmd.Stderr = full, full
			p.start()
			eventually(t, "it writes", func() bool { return inSystemCall(p.cmd.Process.Pid, writing...) })
			interrupted(t, p)
		})
	}
}

// listenSilently accepts connections, reports each, and never answers.
func listenSilently(t *testing.T, network, at string) (net.Listener, <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan net.Conn, 64)
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			asked <- conn
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-accepting
		for len(asked) > 0 {
			(<-asked).Close()
		}
	})
	return l, asked
}

// TestInterruptSilentPeer: SIGINT ends commands that wait for an answer.
func TestInterruptSilentPeer(t *testing.T) {
	t.Run("ship", func(t *testing.T) {
		l, asked := listenSilently(t, "tcp", "127.0.0.1:0")
		p := newTool(t, "", "ship", "--journal", writeJournal(t, shown...))
		p.cmd.Env = append(p.cmd.Env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+l.Addr().String())
		p.start()
		conn := <-asked
		defer conn.Close()
		request := make([]byte, 4)
		if _, err := conn.Read(request); err != nil || string(request) != "POST" {
			t.Fatalf("%q, %v", request, err)
		}
		interrupted(t, p)
	})
	for _, name := range []string{"on", "off", "status"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			base := filepath.Join(dir, "s", "silent")
			addRelay(t, dir, "silent", &dummyRelay{Relay: control.Relay{Sandbox: "silent"}})
			_, asked := listenSilently(t, "unix", base+control.Suffix)
			text, err := json.Marshal(control.Relay{Sandbox: "silent", RelaySock: base + ".sock", Dynamic: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(base+".json", text, 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{name, "--state-dir", dir}
			if name == "status" {
				args = append(args, "--wait", "1h")
			} else {
				args = append(args, "all")
			}
			p := newTool(t, "", args...)
			p.start()
			defer (<-asked).Close()
			interrupted(t, p)
		})
	}
}
