package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
)

// startGuard runs the program as the guard of a state directory.
func startGuard(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(shimtest.RelayProgram(t), "-state-dir", dir, command.Guard)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	shimtest.Eventually(t, "the guard answers", func() bool { return guard.Ping(context.Background(), dir) == nil })
	return cmd
}

// TestGuardReplaced: the guard becomes another program in place, and relays are guarded on.
func TestGuardReplaced(t *testing.T) {
	dir := t.TempDir()
	startGuard(t, dir)
	c := new(guard.Client)
	c.Register(guard.ClientOptions{Dir: dir, Who: guard.Registration{ID: "x", Program: "/x", Args: []string{"x"}}, Logf: t.Logf})
	defer c.Leave()
	shimtest.Eventually(t, "it is guarded", c.Guarded)
	ctx := context.Background()
	if err := guard.Replace(ctx, dir, "/nowhere"); err == nil {
		t.Error("a program that is not there is executed")
	}
	if err := guard.Replace(ctx, dir, shimtest.RelayProgram(t)); err != nil {
		t.Fatal(err)
	}
	shimtest.Eventually(t, "the next guard has it", func() bool {
		_, all, err := guard.Ask(ctx, dir)
		return err == nil && len(all) == 1 && all[0].Guarded
	})
}

// TestGuardMemory: a guard of a hundred relays with three connections each stays small.
func TestGuardMemory(t *testing.T) {
	const relays, connections = 100, 3
	dir := t.TempDir()
	cmd := startGuard(t, dir)
	a, b, err := host.UnixPair(unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	for i := range relays {
		c := new(guard.Client)
		c.Register(guard.ClientOptions{
			Dir: dir, Logf: t.Logf,
			Who: guard.Registration{ID: fmt.Sprintf("%s/s/%032x.sock", dir, i), Program: "/x", Args: []string{"containerd-shim-kata-qemu-traced-v2", "-namespace", "k8s.io", "-id", fmt.Sprintf("%064x", i), "relay"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG=C.UTF-8", "INVOCATION_ID=0123456789abcdef0123456789abcdef", "JOURNAL_STREAM=8:12345", "SYSTEMD_EXEC_PID=1234", "NOTIFY_SOCKET=/run/systemd/notify", "TTRPC_ADDRESS=/run/containerd/containerd.sock.ttrpc", "GRPC_ADDRESS=/run/containerd/containerd.sock", "NAMESPACE=k8s.io", "MAX_SHIM_VERSION=2"}},
		})
		defer c.Leave()
		for _, name := range []string{"listener", "control", "sentinel", "state"} {
			c.Store(guard.Entry{Name: name, Files: []syscall.Conn{b}})
		}
		for n := range connections {
			c.Store(guard.Entry{Name: fmt.Sprint("conn/", n), Kind: guard.Relayed, Files: []syscall.Conn{a, b, b}})
		}
	}
	shimtest.Eventually(t, "all are registered", func() bool {
		_, all, err := guard.Ask(context.Background(), dir)
		return err == nil && len(all) == relays
	})
	pid := cmd.Process.Pid
	shimtest.Eventually(t, "it gives back what it has needed for a moment", func() bool {
		return memoryOf(t, pid, "VmRSS") <= 10<<10 && memoryOf(t, pid, "RssAnon") <= 3<<10
	})
	t.Logf("%d kB, %d kB of it anonymous", memoryOf(t, pid, "VmRSS"), memoryOf(t, pid, "RssAnon"))
}

// memoryOf returns a line of a process's status, in kB.
func memoryOf(t *testing.T, pid int, name string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in %s", name, text)
	}
	kB, _ := strconv.Atoi(string(m[1]))
	return kB
}
