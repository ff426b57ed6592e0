package listen

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// roleEnv makes the test binary another program: tests that are about processes
// need some.
const roleEnv = "SHIMTRACE_TEST_ROLE"

var roles = map[string]func(args []string) error{
	"connect": connectRole,
	"hybrid":  hybridRole,
	"sleep":   sleepRole,
	"orphan":  orphanRole,
	"parent":  parentRole,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test
			os.Exit(1)
		}()
		var args []string
		if len(os.Args) > 1 {
			args = os.Args[1:]
		}
		if err := roles[role](args); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// child is another process of the test binary; its lines are what it tells.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
}

// start runs the test binary in a role. It ends with the test at the latest.
func start(t *testing.T, attr *syscall.SysProcAttr, role string, args ...string) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Stderr = os.Stderr
	// No Pdeathsig: that is about the thread, and those that work in a VMM's
	// directory end.
	cmd.SysProcAttr = attr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: cmd, lines: make(chan string, 1024)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(c.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	return c
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// kill ends the child as nothing can prepare for.
func (c *child) kill() {
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Error(err)
	}
}

// patience is how long a test waits for what must come; only a failure waits so
// long.
const patience = 20 * time.Second

// expect waits for a line that begins so, passing over others, and returns it.
func (c *child) expect(prefix string) string {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				c.t.Fatalf("process %d ended without saying %q", c.pid(), prefix)
			}
			if strings.HasPrefix(line, prefix) {
				return line
			}
			c.t.Logf("process %d says %q", c.pid(), line)
		case <-timeout:
			c.t.Fatalf("process %d does not say %q", c.pid(), prefix)
		}
	}
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("does not happen: %s", what)
		}
	}
}

// needRoot is for tests that change users.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}

// asUser runs a child as another user.
func asUser(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}

// connectRole connects to a Unix socket and says how that ends: NETWORK PATH.
func connectRole(args []string) error {
	conn, err := net.Dial(args[0], args[1])
	if err != nil {
		fmt.Println("refused", err)
		return nil
	}
	defer conn.Close()
	fmt.Println("connected")
	_, _ = conn.Write([]byte("hello"))
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	n, err := conn.Read(make([]byte, 16))
	fmt.Println("read", n, err)
	return nil
}

const nobody = 65534

// openUp lets everybody into a directory of the test.
func openUp(t *testing.T, dir string) {
	t.Helper()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
