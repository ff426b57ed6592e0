package main

import (
	"context"
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

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// asToolEnv makes the test binary act as the tool.
const asToolEnv = "SHIMTRACE_TEST_AS_TOOL"

func TestMain(m *testing.M) {
	if os.Getenv(asToolEnv) != "" {
		if file := os.Getenv(memoryEnv); file != "" {
			code := run(context.Background(), system(), os.Args)
			if err := reportMemory(file); err != nil {
				panic(err)
			}
			os.Exit(code)
		}
		main()
	}
	os.Exit(m.Run())
}

const forwardPatience = 30 * time.Second

var eventually = testkit.Until

// forwardProcess is a running shimtrace forward or other command of the tool.
type forwardProcess struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr testkit.Output
}

// newForward prepares a shimtrace forward.
func newForward(t *testing.T, config string, args ...string) *forwardProcess {
	t.Helper()
	return newTool(t, config, append([]string{"forward"}, args...)...)
}

// ownDirs sets the directories that a configuration does not name, so that nothing is
// left in this host's.
func ownDirs(t *testing.T, config string) (sections string) {
	t.Helper()
	for _, s := range []struct{ section, key string }{{"relay", "state_dir"}, {"journal", "dir"}} {
		if strings.Contains(config, "["+s.section+"]") {
			continue
		}
		sections += fmt.Sprintf("\n[%s]\n%s = %q\n", s.section, s.key, testkit.ShortDir(t))
	}
	return sections
}

// newTool prepares the tool as a process with its own configuration, killed at the
// test's end if it still runs.
func newTool(t *testing.T, config string, args ...string) *forwardProcess {
	t.Helper()
	file := filepath.Join(openDir(t), "config.toml")
	if err := os.WriteFile(file, []byte(config+ownDirs(t, config)), 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &forwardProcess{t: t, cmd: exec.Command(self, args...)}
	p.cmd.Env = []string{asToolEnv + "=1", "SHIMTRACE_CONFIG=" + file, "PATH=" + os.Getenv("PATH"), "GORACE=" + os.Getenv("GORACE")}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	// A grandchild may hold the pipes.
	p.cmd.WaitDelay = 5 * time.Second
	t.Cleanup(func() {
		if p.cmd.Process != nil && p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%s\nstdout: %.2000s\nstderr: %s", args, p.stdout.String(), p.stderr.String())
		}
	})
	return p
}

// rewrite replaces the configuration of a running process, which never reads half of it.
func (p *forwardProcess) rewrite(text string) {
	p.t.Helper()
	for _, kv := range p.cmd.Env {
		file, ok := strings.CutPrefix(kv, "SHIMTRACE_CONFIG=")
		if !ok {
			continue
		}
		testkit.Check(p.t, os.WriteFile(file+".next", []byte(text), 0o644))
		testkit.Check(p.t, os.Rename(file+".next", file))
		return
	}
	p.t.Fatal("it has no configuration")
}

func startForward(t *testing.T, config string, args ...string) *forwardProcess {
	t.Helper()
	p := newForward(t, config, args...)
	p.start()
	return p
}

func (p *forwardProcess) start() {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// says waits until stderr contains the text.
func (p *forwardProcess) says(text string) {
	p.t.Helper()
	eventually(p.t, "it says "+text, func() bool { return strings.Contains(p.stderr.String(), text) })
}

// ends waits for the process's end and checks its exit code.
func (p *forwardProcess) ends(code int) {
	p.t.Helper()
	kill := time.AfterFunc(forwardPatience, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("exit code %d (%s), want %d", got, p.cmd.ProcessState, code)
	}
}

// stop ends the process as systemd does.
func (p *forwardProcess) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	p.ends(console.OK)
}

// openDir returns a new directory that every user can read.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for up := dir; up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sandboxDir creates a VM's directory below dir and returns the path of its hybrid
// VSOCK socket.
func sandboxDir(t *testing.T, dir, sandbox string) (socket string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, sandbox), 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, sandbox, "clh.sock")
}

// capturedSpans is the number of spans in the capture that agents send here,
// capturedQuiet that of the quiet ones among them.
const (
	capturedSpans = 168
	capturedQuiet = 38
)

// connectAgent connects like a socket's VMM for its agent, and sends a capture. The
// connection stays open.
func connectAgent(t *testing.T, socket string) net.Conn {
	t.Helper()
	conn, err := sendAsAgent(t, socket)
	if err != nil {
		t.Fatal("the agent is not read: ", err)
	}
	return conn
}

// sendAsAgent is connectAgent, which may find that the process ends meanwhile.
func sendAsAgent(t *testing.T, socket string) (conn net.Conn, err error) {
	t.Helper()
	eventually(t, "somebody listens beside "+socket, func() bool {
		conn, err = net.Dial("unix", socket+"_10240")
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetWriteDeadline(time.Now().Add(forwardPatience))
	_, err = conn.Write(captured.Frames(t, captured.Go+".agent"))
	return conn, err
}
