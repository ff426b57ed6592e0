// Package vmtest has what the tests about the directories of VMMs share: other processes,
// each of which is the test's own program in a role, and a check for tests that need
// root.
package vmtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shimtrace/shimtrace/internal/testkit"
)

// RoleEnv names the role of a process.
const RoleEnv = "SHIMTRACE_TEST_ROLE"

// Main runs a package's tests, and fails if goroutines are left. In a process that a test
// has started, it plays the process's role instead.
func Main(m *testing.M, roles map[string]func(args []string) error) {
	if role := os.Getenv(RoleEnv); role != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test
			os.Exit(1)
		}()
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// Child is another process of the test's program.
type Child struct {
	tb    testing.TB
	cmd   *exec.Cmd
	lines chan string // what it says
	end   func()
}

// Start runs the test's program in a role. It ends with the test at the latest. attr may be
// nil.
func Start(tb testing.TB, attr *syscall.SysProcAttr, role string, args ...string) *Child {
	tb.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), RoleEnv+"="+role)
	cmd.Stderr = os.Stderr
	// No Pdeathsig: it is sent when the starting thread ends, and threads that work in a
	// VMM's directory end early.
	cmd.SysProcAttr = attr
	if _, err := cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	c := &Child{tb: tb, cmd: cmd, lines: make(chan string, 1024)}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(c.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	})
	c.end = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		reading.Wait()
		_ = cmd.Wait()
	})
	tb.Cleanup(c.end)
	return c
}

// PID returns the process's id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Kill ends the process without a chance to prepare, and waits for its end.
func (c *Child) Kill() { c.end() }

// Expect waits for a line, passing over others.
func (c *Child) Expect(line string) {
	c.tb.Helper()
	c.await(line, func(got string) bool { return got == line })
}

// ExpectPrefix waits for a line that begins so, passing over others, and returns it.
func (c *Child) ExpectPrefix(prefix string) string {
	c.tb.Helper()
	return c.await(prefix, func(got string) bool { return strings.HasPrefix(got, prefix) })
}

func (c *Child) await(what string, is func(line string) bool) string {
	c.tb.Helper()
	timeout := time.After(testkit.Patience)
	for {
		select {
		case line, ok := <-c.lines:
			switch {
			case !ok:
				c.tb.Fatalf("process %d ended without saying %q", c.PID(), what)
			case is(line):
				return line
			case strings.HasPrefix(line, "error"):
				c.tb.Fatal(line)
			}
			c.tb.Logf("process %d says %q", c.PID(), line)
		case <-timeout:
			c.tb.Fatalf("process %d does not say %q", c.PID(), what)
		}
	}
}

// NeedRoot is for tests that change users.
func NeedRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		tb.Fatal("this test needs root")
	}
	tb.Skip("this test needs root")
}
