package vm_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/vm"
)

func TestHybridReachesBothWays(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "vm.sock")
	host, err := net.Listen("unix", socket+"_10240")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	lines := make(chan string, 1)
	go func() {
		conn, err := host.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Fprint(conn, "answer to ", line)
		lines <- line
	}()

	g := vm.StartHybrid(t, vm.HybridOptions{
		Socket:   socket,
		Files:    map[string]string{"bin/peer": program(t, "peer")},
		Services: []string{"peer serve 1024", "peer dial 2 10240 'from the guest'"},
	})
	select {
	case line := <-lines:
		if line != "from the guest\n" {
			t.Errorf("the host got %q", line)
		}
	case <-time.After(patience):
		t.Fatal("nothing arrived from the guest")
	}
	wait(t, g, "^peer: answer from CID 2: answer to from the guest$")

	wait(t, g, "^peer: listening on port 1024$")
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "CONNECT 1024\n") // nothing may follow before the answer
	r := bufio.NewReader(conn)
	if ok, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(ok, "OK ") {
		t.Fatalf("handshake: %q, %v", ok, err)
	}
	fmt.Fprint(conn, "from the host\n")
	if back, err := r.ReadString('\n'); err != nil || back != "from the host\n" {
		t.Errorf("the guest sent back %q, %v", back, err)
	}
	wait(t, g, "^peer: from CID 2: from the host$")
}

func TestCommandsInAGuest(t *testing.T) {
	g := vm.StartHybrid(t, vm.HybridOptions{Socket: filepath.Join(t.TempDir(), "vm.sock")})
	ctx := t.Context()
	if out, err := g.Sh(ctx, "echo $VM_CID; lsmod | grep -c ^vmw_vsock_virtio_transport"); err != nil || out != "3\n2\n" {
		t.Errorf("the command gives %q, %v", out, err)
	}
	if out, err := g.Sh(ctx, "echo no; exit 3"); err == nil || !strings.Contains(err.Error(), "exit code 3\nno") {
		t.Errorf("a failing command gives %q, %v", out, err)
	}
	pid, err := g.Spawn(ctx, "sh -c 'echo spawned; exec sleep 1000'")
	if err != nil {
		t.Fatal(err)
	}
	wait(t, g, "^spawned$")
	if _, err := g.Sh(ctx, fmt.Sprintf("kill -9 %d", pid)); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := g.WaitLine(short, "^never$"); err == nil || !strings.Contains(err.Error(), "spawned") {
		t.Errorf("waiting in vain gives %v, without the console's end", err)
	}
	if err := g.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if _, err := g.WaitLine(ctx, "^never$"); err == nil {
		t.Error("a guest that has ended still makes wait")
	}
}
