// Package machine gives a test a machine of its own: this one's files, copied on write, a
// network without anything in it, and systemd as its first process. What a test does in it
// is gone with it: it can install packages, enable units and restart containerd, as users
// do.
//
// The kernel is this machine's, and so are its limits: there are no modules to load, and
// the kernel tells of no processes outside its own namespaces.
package machine

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

//go:embed start.sh
var script string

// Machine is a running machine.
type Machine struct {
	dir, name string
	cmd       *exec.Cmd
	first     int // systemd's process, as this machine sees it
	said      bytes.Buffer
	ended     chan struct{}
}

// Start starts a machine and has it ended with the test. Of this machine's /tmp it has only
// the directory of the sources, if that is there. It skips the test where that
// needs what is not there: root, systemd, or a kernel that lets root mount and have
// namespaces and cgroups.
func Start(t *testing.T, sources string) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a machine needs root")
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Skipf("a machine needs systemd: %v", err)
	}
	dir := t.TempDir()
	m := &Machine{dir: filepath.Join(dir, "m"), name: "shimtrace-" + filepath.Base(filepath.Dir(dir)), ended: make(chan struct{})}
	start := filepath.Join(dir, "start.sh")
	if err := errors.Join(os.Mkdir(m.dir, 0o755), os.WriteFile(start, []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.removeCgroups(t) })
	m.cmd = exec.Command(start, m.dir, m.name, sources)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also if the test is killed
	m.cmd.Stdout, m.cmd.Stderr = &m.said, &m.said
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = m.cmd.Wait()
		close(m.ended)
	}()
	t.Cleanup(func() {
		_ = m.cmd.Process.Kill()
		<-m.ended
	})
	m.await(t)
	return m
}

// await waits until systemd says that it runs.
func (m *Machine) await(t *testing.T) {
	t.Helper()
	for {
		select {
		case <-m.ended:
			t.Skipf("this machine's kernel does not allow for another one: %s", &m.said)
		case <-t.Context().Done():
			t.Fatal("systemd does not come up")
		case <-time.After(20 * time.Millisecond):
		}
		pid := m.cmd.Process.Pid
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		m.first, _ = strconv.Atoi(strings.TrimSpace(string(children)))
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.first))
		if m.first == 0 || string(name) != "systemd\n" {
			continue
		}
		// "degraded": a unit of this machine's does not work in another one.
		if out, _ := m.Run(t.Context(), "systemctl is-system-running || true"); out == "running\n" || out == "degraded\n" {
			return
		}
	}
}

// Run runs a script in the machine, with sh -e, and returns what it prints. An error has
// what it complains of.
func (m *Machine) Run(ctx context.Context, script string) (string, error) {
	return m.enter(ctx, "-a", "-r", "-w", "--", "/usr/bin/env", "-i", "HOME=/root", "DEBIAN_FRONTEND=noninteractive",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:"+filepath.Dir(goProgram()), "/bin/sh", "-ec", script)
}

// goProgram is this machine's compiler, empty if there is none.
func goProgram() string {
	path, _ := exec.LookPath("go")
	return path
}

func (m *Machine) enter(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(m.first)}, args...)...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s%s", err, &out, &complaint)
	}
	return out.String(), nil
}

// Put copies a file of this machine to a path in the machine.
func (m *Machine) Put(path, file string) error {
	content, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(fmt.Sprintf("/proc/%d/root%s", m.first, path), content, 0o755)
	}
	return err
}

// Changed returns what differs from this machine's files below these directories, a line
// for each: type, mode, path, and a link's target or a file's sum.
func (m *Machine) Changed(ctx context.Context, dirs ...string) ([]string, error) {
	const list = `cd "$0"; for d; do [ ! -e "$d" ] || find "$d" \( -type f -printf 'f %m ' -exec sha256sum {} \; \) -o -printf '%y %m %p %l\n'; done`
	out, err := m.enter(ctx, append([]string{"-m", "--", "/bin/sh", "-ec", list, filepath.Join(m.dir, "changed")}, dirs...)...)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	return lines, nil
}

// removeCgroups removes the machine's cgroups, once its processes are gone.
func (m *Machine) removeCgroups(t *testing.T) {
	for range 500 {
		var failed error
		for _, pattern := range []string{"/sys/fs/cgroup/" + m.name, "/sys/fs/cgroup/*/" + m.name} {
			tops, _ := filepath.Glob(pattern)
			for _, top := range tops {
				failed = errors.Join(failed, removeBelow(top))
			}
		}
		if failed == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("cgroups of %s are left", m.name)
}

// removeBelow removes a cgroup and those below it.
func removeBelow(top string) error {
	var dirs []string
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	var failed error
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = err
		}
	}
	return failed
}
