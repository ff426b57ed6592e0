package vmshim_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	rustclient "github.com/shimtrace/shimtrace/integration/rust/client"
)

// A rustClient is a client of an agent that dials as Kata's Rust runtime does.
type rustClient struct {
	t     *testing.T
	in    io.WriteCloser
	lines *bufio.Scanner
}

// dialAsRust starts one, which is connected when it returns.
func dialAsRust(t *testing.T, socket string) *rustClient {
	t.Helper()
	cmd := exec.Command(rustclient.Program(t), socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	c := &rustClient{t: t, in: in, lines: bufio.NewScanner(out)}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the Rust client ended: %v", err)
		}
	})
	c.connected()
	return c
}

func (c *rustClient) connected() {
	c.t.Helper()
	if line := c.line(); !strings.HasPrefix(line, "connected ") {
		c.t.Fatalf("the Rust client says %q", line)
	}
}

func (c *rustClient) line() string {
	c.t.Helper()
	if !c.lines.Scan() {
		c.t.Fatalf("the Rust client says nothing more: %v", c.lines.Err())
	}
	return c.lines.Text()
}

// reconnect ends the connection and makes another, however long that takes.
func (c *rustClient) reconnect() {
	c.t.Helper()
	fmt.Fprintln(c.in, "reconnect")
	c.connected()
}

// tell has the client do something, and returns how that went.
func (c *rustClient) tell(command string) string {
	c.t.Helper()
	fmt.Fprintln(c.in, command)
	return c.line()
}

// ask makes a request, whose answer is to begin so.
func (c *rustClient) ask(request, answer string) {
	c.t.Helper()
	if line := c.tell("call " + request); !strings.HasPrefix(line, answer) {
		c.t.Errorf("%s gives %q, want %q", request, line, answer)
	}
}
