// Command demo shows what shimtrace does: it starts a private containerd with the
// wrapped runc in it, runs a container and a CRI pod with an exec, prints the
// trace of each and removes everything.
//
// It takes the containerd and the runc that the machine has, else Debian's own, which it
// unpacks beside and does not install; only shimtrace itself is built.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shimtrace/shimtrace/integration/cri"
	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Stdout)
	traced.Clean()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("containers need root: run it as root")
	}
	p := newProgress(out)
	version, err := parts(ctx, p)
	if err != nil {
		return err
	}
	p.begin("building shimtrace")
	if _, err := traced.Bin(); err != nil {
		return err
	}
	p.begin("starting a private containerd, with runtime runc-traced beside runc")
	in, err := traced.New(ctx, traced.Options{Options: rig.Options{Version: version, Lean: true}})
	if err != nil {
		return err
	}
	defer func() {
		p.begin("removing everything")
		if cerr := in.Close(); err == nil {
			err = cerr
		}
		p.end()
	}()
	if err := container(p, in); err != nil {
		return err
	}
	if err := pod(ctx, p, in); err != nil {
		return err
	}
	p.end()
	return draw(ctx, out, in)
}

func container(p *progress, in *traced.Install) error {
	p.begin("ctr run: a container that says hello")
	return in.Rig.Ctr("run", "--rm", "--runtime", in.Runtime.Type, image.Busybox, "hello", "echo", "hello from a container").Check()
}

func pod(ctx context.Context, p *progress, in *traced.Install) error {
	p.begin("CRI: a pod, a container in it, an exec, and one that fails")
	client := in.Rig.CRI()
	sandbox, err := client.Run(ctx, cri.Pod{Name: "web", Runtime: in.Runtime.Name, Logs: filepath.Join(in.Rig.Dir, "logs"), Cgroup: "/" + in.Rig.Name})
	if err != nil {
		return err
	}
	id, err := sandbox.Start(ctx, "app", image.Busybox, rig.Sleep...)
	if err != nil {
		return err
	}
	if _, err := client.Exec(ctx, id, "echo", "hello from a pod"); err != nil {
		return err
	}
	if _, err := client.Exec(ctx, id, "no-such-program"); err == nil {
		return fmt.Errorf("an exec of a program that is not there went well")
	}
	p.begin("CRI: stopping the pod and removing it")
	if err := client.RemovePods(ctx); err != nil {
		return err
	}
	return ended(ctx, in)
}

// ended waits for the relays' end, where the last spans are written.
func ended(ctx context.Context, in *traced.Install) error {
	for len(traced.Find(in.Rig, traced.Relay)) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func draw(ctx context.Context, out io.Writer, in *traced.Install) error {
	for _, args := range [][]string{{"list"}, {"show", "hello"}, {"show", "web"}} {
		fmt.Fprintf(out, "\n$ shimtrace %s\n", strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, filepath.Join(in.Bin, "shimtrace"), args...)
		cmd.Env = append(os.Environ(), "SHIMTRACE_CONFIG="+in.Config)
		cmd.Stdout, cmd.Stderr = out, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("shimtrace %s: %w", args[0], err)
		}
	}
	fmt.Fprintln(out)
	return nil
}
