// Command demo shows one trace across a VM's boundary: it boots an emulated guest
// with an agent in it that traces as Kata's does, runs a container whose shim
// drives that agent and traces itself, as Kata's Go runtime does, and prints the
// waterfall of the sandbox: the shim's calls, what the runtime did for them, what it
// asked the agent and, below that, what the agent did inside.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/integration/vm"
)

func main() {
	err := run(context.Background())
	traced.Clean()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

const sandbox = "demo"

// configuration has the VMM's socket, the endpoint for the runtime's spans, and the
// program that is it.
const configuration = `[agent]
receive = "on"
inject = "on"
[agent.sockets]
demo = %q
[jaeger]
receive = "on"
listen = %q
[export]
shipper = %q
`

// freePort returns an address of the loopback interface that nobody listens at.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func run(ctx context.Context) (err error) {
	began := time.Now()
	step := func(format string, args ...any) {
		fmt.Printf("%5.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	dir, err := os.MkdirTemp("", "demo-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	link, program, err := programs(ctx, dir)
	if err != nil {
		return err
	}
	step("built the shim, the agent and the VM-shaped runtime")

	socket := filepath.Join(dir, sandbox, "vm.sock")
	if err := os.Mkdir(filepath.Dir(socket), 0o700); err != nil {
		return err
	}
	guest, err := vm.Hybrid(ctx, vm.HybridOptions{
		Socket:   socket,
		Files:    map[string]string{"bin/agent": program},
		Services: []string{"agent --listen vsock://:1024 --export vsock://2:10240 --flush-ms 500"},
	})
	if err != nil {
		return err
	}
	defer guest.Close()
	step("the guest is up, with the agent in it")

	pattern := filepath.Join(dir, "{sandbox}", "vm.sock")
	jaeger, err := freePort()
	if err != nil {
		return err
	}
	receiver, err := traced.ImpatientShipper(dir)
	if err != nil {
		return err
	}
	runtime := rig.Runtime{Name: "vmrunc-traced", Type: rig.Runc.Type, Path: link}
	in, err := traced.New(ctx, traced.Options{
		Options: rig.Options{
			Path: []string{dir},
			Env: []string{
				"VMSHIM_MODE=external", "VMSHIM_SOCKET=" + pattern, "VMSHIM_BOOT=500ms",
				"VMSHIM_TRACING=on", "VMSHIM_JAEGER=http://" + jaeger + "/api/traces",
			},
			Runtimes: []rig.Runtime{runtime},
		},
		Config: fmt.Sprintf(configuration, pattern, jaeger, receiver),
	})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := in.Close(); err == nil {
			err = cerr
		}
		step("removed everything")
	}()
	step("containerd 2.4 is up, with runtime vmrunc-traced")

	for _, args := range [][]string{
		{"run", "--detach", "--runtime", runtime.Shim(), image.Busybox, sandbox, "sleep", "1000"},
		{"tasks", "exec", "--exec-id", "e1", sandbox, "echo", "hi"},
		{"tasks", "kill", "--signal", "SIGKILL", sandbox},
	} {
		if err := in.Rig.Ctr(args...).Check(); err != nil {
			return err
		}
		step("ctr %s", strings.Join(args, " "))
	}
	if err := remove(in.Rig); err != nil {
		return err
	}
	step("ctr tasks delete; the agent sends its last spans with the VM's end")
	return show(ctx, in)
}

// programs builds what the demo runs into dir: the wrapped runtime's link there, and
// the agent, wherever it is kept.
func programs(ctx context.Context, dir string) (link, program string, err error) {
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+"/", "./cmd/containerd-shim-vmrunc-v2")
	build.Dir = filepath.Join(traced.Root(), "integration", "vmshim")
	if out, err := build.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("build the VM-shaped shim: %w\n%s", err, out)
	}
	product, err := traced.Bin()
	if err != nil {
		return "", "", err
	}
	link = filepath.Join(dir, "containerd-shim-vmrunc-traced-v2")
	if err := os.Symlink(filepath.Join(product, "containerd-shim-traced-v2"), link); err != nil {
		return "", "", err
	}
	program, err = agent.Build(ctx)
	return link, program, err
}

// remove deletes the task as soon as it has stopped.
func remove(r *rig.Rig) error {
	var res rig.Result
	for range 200 {
		if res = r.Ctr("tasks", "delete", sandbox); res.Code == 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return res.Check()
}

// show prints the trace once its last spans have come.
func show(ctx context.Context, in *traced.Install) error {
	for range 100 {
		spans, err := in.Spans()
		if err != nil {
			return err
		}
		for _, s := range spans {
			if s.Name == "rootSpan" {
				fmt.Printf("\n$ shimtrace show %s\n", sandbox)
				cmd := exec.CommandContext(ctx, filepath.Join(in.Bin, "shimtrace"), "show", sandbox)
				cmd.Env = append(os.Environ(), "SHIMTRACE_CONFIG="+in.Config)
				cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
				err := cmd.Run()
				fmt.Println()
				return err
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the agent's last spans did not come out of the VM")
}
