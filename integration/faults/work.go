package faults

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"golang.org/x/sys/unix"
)

// begin creates and starts a container.
func (l *Load) begin(id string, args ...string) (pid uint32, err error) {
	object, err := l.c.object(id, args)
	if err != nil {
		return 0, err
	}
	if err := l.made("Create container "+id, func(ctx context.Context) error {
		_, err := l.c.store.Create(ctx, &containers.CreateContainerRequest{Container: object})
		return err
	}); err != nil {
		return 0, err
	}
	if err := l.made("Create "+id, func(ctx context.Context) error {
		answer, err := l.c.tasks.Create(ctx, &tasks.CreateTaskRequest{ContainerID: id, Rootfs: l.c.mounts()})
		pid = answer.GetPid()
		return err
	}); err != nil {
		return 0, err
	}
	l.expect(Expected{"sandbox start", id, ""})
	l.expect(Expected{"/Create", id, ""})
	return pid, l.startProcess(id, "")
}

// startProcess starts a container's own process, or that of an exec.
func (l *Load) startProcess(id, exec string) error {
	if err := l.made("Start "+cmp.Or(exec, id), func(ctx context.Context) error {
		_, err := l.c.tasks.Start(ctx, &tasks.StartRequest{ContainerID: id, ExecID: exec})
		return err
	}); err != nil {
		return err
	}
	l.expect(Expected{"/Start", id, exec})
	return nil
}

// await waits for the end of such a process, whose status it knows.
func (l *Load) await(id, exec string, status uint32) error {
	return l.made("Wait "+cmp.Or(exec, id), func(ctx context.Context) error {
		answer, err := l.c.tasks.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: exec})
		if err == nil && answer.ExitStatus != status {
			err = fmt.Errorf("exit status %d, want %d", answer.ExitStatus, status)
		}
		return err
	})
}

// remove kills a container and removes it.
func (l *Load) remove(id string) error {
	if err := l.made("Kill "+id, func(ctx context.Context) error {
		_, err := l.c.tasks.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL)})
		return err
	}); err != nil {
		return err
	}
	return l.finish(id, 128+uint32(unix.SIGKILL))
}

// finish waits for a container's end, whose status it knows, and removes it.
func (l *Load) finish(id string, status uint32) error {
	if err := l.await(id, "", status); err != nil {
		return err
	}
	if err := l.made("Delete "+id, func(ctx context.Context) error {
		_, err := l.c.tasks.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
		return err
	}); err != nil {
		return err
	}
	l.expect(Expected{"/Delete", id, ""})
	return l.made("Delete container "+id, func(ctx context.Context) error {
		_, err := l.c.store.Delete(ctx, &containers.DeleteContainerRequest{ID: id})
		return err
	})
}

// clear removes what is left of a container that a fault has interrupted.
func (l *Load) clear(id string) {
	l.cutOff(id)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ctx = l.c.named(ctx)
	for range 100 {
		_, _ = l.c.tasks.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL)})
		_, _ = l.c.tasks.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
		if _, err := l.c.store.Delete(ctx, &containers.DeleteContainerRequest{ID: id}); err == nil || !l.opts.Excused(err) {
			if _, err := l.c.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id}); err != nil && !l.opts.Excused(err) {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// life is a container that starts, ends by itself and is removed.
func (l *Load) life() error {
	id, status := l.next("life"), 1+rand.Uint32N(100)
	_, err := l.begin(id, "sh", "-c", fmt.Sprint("exit ", status))
	if err == nil {
		err = l.finish(id, status)
	}
	if err != nil {
		l.clear(id)
	}
	return err
}

// exec runs a process in a pod that writes the pattern, and compares what it wrote.
func (l *Load) exec(p *pod) error {
	id, status := l.next("exec"), 1+rand.Uint32N(100)
	path := filepath.Join(l.in.Rig.Dir, id)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return err
	}
	defer os.Remove(path)
	// Open for writing as well, so that neither side waits for the other.
	pipe, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer pipe.Close()
	_ = pipe.SetReadDeadline(time.Now().Add(patience))
	read := make(chan error, 1)
	go func() {
		got := make([]byte, patternSize)
		n, err := io.ReadFull(pipe, got)
		if !bytes.Equal(got[:n], l.pattern[:n]) {
			err = errors.Join(err, fmt.Errorf("another output than what was written, within %d bytes", n))
		}
		read <- err
	}()
	err = l.execProcess(p, id, path, status)
	if err != nil {
		pipe.Close()
	}
	got := <-read
	if err == nil {
		err = l.made("output of "+id, func(context.Context) error { return got })
	}
	return err
}

func (l *Load) execProcess(p *pod, id, stdout string, status uint32) error {
	spec, err := execSpec(l.c.process([]string{"sh", "-c", fmt.Sprintf("cat %s; exit %d", patternFile, status)}))
	if err != nil {
		return err
	}
	if err := l.made("Exec "+id, func(ctx context.Context) error {
		_, err := l.c.tasks.Exec(ctx, &tasks.ExecProcessRequest{ContainerID: p.id, ExecID: id, Spec: spec, Stdout: stdout, Stderr: os.DevNull})
		return err
	}); err != nil {
		return err
	}
	l.expect(Expected{"/Exec", p.id, id})
	if err := l.startProcess(p.id, id); err != nil {
		return err
	}
	if err := l.await(p.id, id, status); err != nil {
		return err
	}
	if err := l.made("Delete "+id, func(ctx context.Context) error {
		_, err := l.c.tasks.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: p.id, ExecID: id})
		return err
	}); err != nil {
		return err
	}
	l.expect(Expected{"/Delete", p.id, id})
	return nil
}

// ask asks containerd for what it must ask the shim for.
func (l *Load) ask(p *pod) error {
	err := l.quick("State "+p.id, func(ctx context.Context) error {
		answer, err := l.c.tasks.Get(ctx, &tasks.GetRequest{ContainerID: p.id})
		return errors.Join(err, running(p, answer.GetProcess(), err))
	})
	if err == nil {
		err = l.quick("Pids "+p.id, func(ctx context.Context) error {
			_, err := l.c.tasks.ListPids(ctx, &tasks.ListPidsRequest{ContainerID: p.id})
			return err
		})
	}
	time.Sleep(time.Millisecond)
	return err
}

func running(p *pod, now *task.Process, err error) error {
	if err == nil && (now.GetPid() != p.pid || now.GetStatus() != task.Status_RUNNING) {
		return fmt.Errorf("process %d is %s, want %d, running", now.GetPid(), now.GetStatus(), p.pid)
	}
	return nil
}

// alive is the error by which a pod is lost.
func (l *Load) alive(p *pod) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := l.c.tasks.Get(l.c.named(ctx), &tasks.GetRequest{ContainerID: p.id})
	return errors.Join(err, running(p, answer.GetProcess(), err))
}
