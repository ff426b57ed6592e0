package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A daemon is one life of containerd.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// startDaemon starts containerd on the rig's state and waits until it and CRI
// answer.
func (r *Rig) startDaemon(ctx context.Context) error {
	log, err := os.OpenFile(r.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	defer log.Close()
	args := []string{"--config", filepath.Join(r.Dir, "config.toml")}
	if r.opts.Debug {
		args = append(args, "--log-level", "debug")
	}
	// Not the caller's context: containerd lives until it is told to end.
	cmd := r.Command(context.Background(), "containerd", args...)
	cmd.Env = append(r.baseEnv(r.opts.Path), r.opts.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(d.done)
	}()
	r.daemon.Store(d)
	if err := r.waitUp(ctx); err != nil {
		return errors.Join(fmt.Errorf("start containerd: %w", err), r.Kill())
	}
	return nil
}

// waitUp asks as clients do, because the socket is there before the services
// are, and CRI comes last.
func (r *Rig) waitUp(ctx context.Context) error {
	d := r.daemon.Load()
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	for _, probe := range []func() error{
		func() error { return r.run(ctx, "ctr", "version").Check() },
		func() error { return r.cri.Answers(ctx) },
	} {
		var last error
		for {
			err := probe()
			if err == nil {
				break
			}
			if ctx.Err() == nil {
				last = err
			}
			select {
			case <-d.done:
				return fmt.Errorf("it ended: %s", d.cmd.ProcessState)
			case <-ctx.Done():
				return fmt.Errorf("%w; last: %w", ctx.Err(), last)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// Pid is containerd's process id, or 0 while it does not run.
func (r *Rig) Pid() int {
	d := r.daemon.Load()
	if d == nil {
		return 0
	}
	return d.cmd.Process.Pid
}

// Kill ends containerd by SIGKILL and returns when it is gone. Containers and
// shims go on.
func (r *Rig) Kill() error { return r.end(syscall.SIGKILL) }

// Stop ends containerd by SIGTERM. Containers and shims go on, as they do when
// a machine's containerd is updated.
func (r *Rig) Stop() error { return r.end(syscall.SIGTERM) }

func (r *Rig) end(signal syscall.Signal) error {
	d := r.daemon.Swap(nil)
	if d == nil {
		return nil
	}
	if err := d.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end containerd: %w", err)
	}
	select {
	case <-d.done:
		return nil
	case <-time.After(r.opts.Timeout):
		d.cmd.Process.Kill()
		<-d.done
		return fmt.Errorf("containerd did not end by %s within %s", signal, r.opts.Timeout)
	}
}

// Restart stops containerd, if it still runs, and starts it on the same state
// and with the same configuration and environment.
func (r *Rig) Restart(ctx context.Context) error {
	if err := r.Stop(); err != nil {
		return err
	}
	return r.startDaemon(ctx)
}

// Upgrade stops containerd and starts another version on the same state, with pods
// running, as a machine's update does.
func (r *Rig) Upgrade(ctx context.Context, to Version) error {
	containerd, ok := Tools[to]
	if !ok || !containerd.Built(r.tools) {
		return fmt.Errorf("upgrade containerd: there is no %s (go -C integration run ./tools)", to)
	}
	if err := r.Stop(); err != nil {
		return err
	}
	r.opts.Version, r.containerd = to, containerd
	if err := r.writeConfig(); err != nil {
		return err
	}
	return r.startDaemon(ctx)
}

// Log is all that containerd and the shims have logged, over all restarts.
func (r *Rig) Log() string {
	data, err := os.ReadFile(r.logPath())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func (r *Rig) logPath() string { return filepath.Join(r.Dir, "containerd.log") }

// tail is the end of a log, short enough to print.
func tail(log string) string {
	const most = 16 << 10
	if len(log) <= most {
		return log
	}
	cut := log[len(log)-most:]
	return "[...]" + cut[strings.IndexByte(cut, '\n')+1:]
}
