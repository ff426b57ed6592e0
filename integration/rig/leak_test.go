package rig_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
)

// open starts a rig whose Close the test calls itself.
func open(t *testing.T, opts rig.Options) *rig.Rig {
	t.Helper()
	r, err := rig.New(t.Context(), opts)
	var absent *rig.MissingError
	if errors.As(err, &absent) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	check(t, err)
	return r
}

func TestCloseReportsAndRemovesLeaks(t *testing.T) {
	t.Parallel() // Close waits for leaks to go away
	r := open(t, rig.Options{})

	stray := r.Command(context.Background(), "sleep", "1000")
	check(t, stray.Start())
	socket := filepath.Join(r.Dir, "sockets", "stray")
	l, err := net.Listen("unix", socket)
	check(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	check(t, l.Close())
	mount := filepath.Join(r.Dir, "tmp")
	check(t, r.Command(t.Context(), "mount", "-t", "tmpfs", "stray", mount).Run())
	bundle := filepath.Join(r.Dir, "state/io.containerd.runtime.v2.task", r.Name, "stray")
	check(t, os.MkdirAll(bundle, 0o700))

	err = r.Close()
	if err == nil {
		t.Fatal("Close reports no leak")
	}
	for _, want := range []string{"sleep 1000", "socket " + socket, "mount " + mount, "bundle " + bundle} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Close does not report %q: %v", want, err)
		}
	}
	if stray.Wait() == nil {
		t.Error("the stray process ended by itself, want killed")
	}
	if _, err := os.Stat(r.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", r.Dir, err)
	}
}

// Containers are no leak: Close removes them, even if containerd is down.
func TestCloseRemovesContainers(t *testing.T) {
	r := open(t, rig.Options{})
	check(t, r.Ctr("run", "--detach", image.Busybox, "c1", "sleep", "1000").Check())
	check(t, r.Nerdctl("run", "--detach", "--net", "none", image.Busybox, "sleep", "1000").Check())
	pod, err := r.RunPod(rig.Pod{Name: "p"})
	check(t, err)
	_, err = pod.Run(rig.Container{Name: "c"})
	check(t, err)
	check(t, r.Kill())
	processes := r.Processes()
	if len(processes) < 6 {
		t.Errorf("three shims with containers, but only %v", processes)
	}

	check(t, r.Close())
	for _, p := range processes {
		// Who is dead and waits for its parent has no command line.
		if args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID)); len(args) > 0 {
			t.Errorf("process %v is still there", p)
		}
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + r.Name); left != nil {
		t.Errorf("cgroups are still there: %v", left)
	}
}

// A process that dies without Close leaves a rig to the next New.
func TestNewRemovesRigsOfDeadProcesses(t *testing.T) {
	if dir := os.Getenv("RIG_TO_ABANDON"); dir != "" {
		r := open(t, rig.Options{})
		check(t, r.Ctr("run", "--detach", image.Busybox, "c1", "sleep", "1000").Check())
		check(t, os.WriteFile(dir, []byte(r.Dir), 0o600))
		os.Exit(0)
	}
	// Where no other package's test, which may run beside this one, clears it away.
	tmp, err := os.MkdirTemp("/tmp", "")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(tmp) })
	t.Setenv("TMPDIR", tmp)
	note := filepath.Join(t.TempDir(), "dir")
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNewRemovesRigsOfDeadProcesses$")
	child.Env = append(os.Environ(), "RIG_TO_ABANDON="+note)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir, err := os.ReadFile(note)
	if err != nil {
		rig.Start(t, rig.Options{}) // skips as the child did
		t.Fatal(err)
	}
	if _, err := os.Stat(string(dir)); err != nil {
		t.Fatalf("nothing was abandoned: %v", err)
	}
	rig.Start(t, rig.Options{})
	if _, err := os.Stat(string(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}
