package route

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shimtrace/shimtrace/internal/host/hosttest"
)

// asRuntimeEnv makes the test binary a process that connects to an address, prints
// its own address, and keeps the connection until its standard input ends.
const asRuntimeEnv = "SHIMTRACE_TEST_AS_RUNTIME"

func TestMain(m *testing.M) {
	if to := os.Getenv(asRuntimeEnv); to != "" {
		conn, err := net.Dial("tcp", to)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(conn.LocalAddr())
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// endpoint is an address where runtimes connect to.
type endpoint struct {
	*net.TCPListener
	at netip.AddrPort
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &endpoint{l.(*net.TCPListener), l.Addr().(*net.TCPAddr).AddrPort()}
}

// accept returns the address of the next process that has connected.
func (e *endpoint) accept(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := e.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.RemoteAddr().(*net.TCPAddr).AddrPort()
}

// runtime is a process that is connected to the endpoint.
type runtime struct {
	pid  int
	at   netip.AddrPort
	kill func()
}

func (e *endpoint) startRuntime(t *testing.T) runtime {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asRuntimeEnv+"="+e.at.String())
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
	kill := func() {
		_ = cmd.Process.Kill()
		in.Close()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	at, err := netip.ParseAddrPort(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if got := e.accept(t); got != at {
		t.Fatalf("connected from %s, not %s", got, at)
	}
	return runtime{pid: cmd.Process.Pid, at: at, kill: kill}
}

// connectAs connects to the endpoint as a user, and returns the address it is from.
func (e *endpoint) connectAs(t *testing.T, uid int) netip.AddrPort {
	t.Helper()
	var conn net.Conn
	var err error
	<-hosttest.AsUser(t, uid, func() { conn, err = net.Dial("tcp", e.at.String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return e.accept(t)
}
