// Command demo shows what shimtrace does: it starts a private containerd with the
// wrapped runc in it, runs a container and a CRI pod with an exec, prints the
// trace of each and removes everything.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

func main() {
	err := run(context.Background())
	traced.Clean()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	began := time.Now()
	in, err := traced.New(ctx, traced.Options{})
	if err != nil {
		return err
	}
	step(began, "containerd 2.4 is up, with runtime runc-traced")
	defer func() {
		if cerr := in.Close(); err == nil {
			err = cerr
		}
		step(began, "removed everything")
	}()

	res := in.Rig.Nerdctl("run", "--rm", "--name", "hello", "--net", "none", "--runtime", traced.NerdctlRuntime,
		image.Busybox, "echo", "hello from a container")
	if err := res.Check(); err != nil {
		return err
	}
	step(began, "nerdctl run: "+res.Out())

	pod, err := in.Rig.RunPod(rig.Pod{Name: "web", Runtime: traced.Runc})
	if err != nil {
		return err
	}
	id, err := pod.Run(rig.Container{Name: "app"})
	if err != nil {
		return err
	}
	res = in.Rig.Crictl("exec", "-s", id, "echo", "hello from a pod")
	if err := res.Check(); err != nil {
		return err
	}
	step(began, "crictl runp, create, start, exec: "+res.Out())
	if err := in.Rig.Crictl("exec", "-s", id, "no-such-program"); err.Code != 0 {
		step(began, "crictl exec of a program that is not there failed, as it should")
	}
	if err := pod.Remove(); err != nil {
		return err
	}
	step(began, "crictl stop, rm, stopp, rmp")
	time.Sleep(time.Second) // the last spans are written at the relays' end

	for _, args := range [][]string{{"list"}, {"show", "hello"}, {"show", "web"}} {
		fmt.Printf("\n$ shimtrace %s\n", strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, filepath.Join(in.Bin, "shimtrace"), args...)
		cmd.Env = append(os.Environ(), "SHIMTRACE_CONFIG="+in.Config)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("shimtrace %s: %w", args[0], err)
		}
	}
	fmt.Println()
	return nil
}

func step(began time.Time, what string) {
	fmt.Printf("%5.1f s  %s\n", time.Since(began).Seconds(), what)
}
