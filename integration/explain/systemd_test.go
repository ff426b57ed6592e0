package explain_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// systemd runs a systemd for the rig alone until the test's end: a user's, where runc looks
// for the system's, which only a machine's first process can be.
func (s *site) systemd() *os.Process {
	s.Helper()
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		s.Skip("systemd is not installed")
	}
	run := filepath.Join(s.Rig.Dir, "run") // /run of the rig
	check(s.T, os.MkdirAll(filepath.Join(run, "systemd/system"), 0o755))
	cgroup := filepath.Join(cgroups, "systemd", s.Rig.Name+"-systemd")
	if _, err := os.Stat(filepath.Dir(cgroup)); err != nil {
		cgroup = filepath.Join(cgroups, filepath.Base(cgroup))
	}
	check(s.T, os.Mkdir(cgroup, 0o755))
	units := filepath.Join(s.Rig.Dir, ".config/systemd/user")
	check(s.T, os.MkdirAll(units, 0o755))
	check(s.T, os.WriteFile(filepath.Join(units, "nothing.target"), []byte("[Unit]\nDefaultDependencies=no\n"), 0o644))
	cmd := s.Rig.Command(s.Context(), "sh", "-c", `echo $$ >"$0/cgroup.procs"; exec /lib/systemd/systemd --user --unit=nothing.target --log-target=console`, cgroup)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + s.Rig.Dir, "XDG_RUNTIME_DIR=/run"}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(s.T, cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.Failed() {
			s.Logf("systemd: %s", &said)
		}
		check(s.T, errors.Join(removeBelow(cgroup), os.RemoveAll(filepath.Join(run, "systemd"))))
	})
	testkit.Until(s.T, "systemd to listen", func() bool {
		conn, err := net.Dial("unix", filepath.Join(run, "systemd/private"))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return cmd.Process
}

// removeBelow removes a cgroup, and those in it.
func removeBelow(cgroup string) (failed error) {
	var all []string
	_ = filepath.WalkDir(cgroup, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	for i := range all {
		if err := os.Remove(all[len(all)-1-i]); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// TestSeededSystemd: systemd does not answer while runc has it make a container's cgroup.
func TestSeededSystemd(t *testing.T) {
	seeded.Quiet(t)
	bin, err := traced.Bin()
	check(t, err)
	runtime := rig.Runtime{
		Name: "runc-systemd", Type: rig.Runc.Type, Path: filepath.Join(bin, "containerd-shim-runc-traced-v2"),
		TOML: "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'runc-systemd'.options]\nSystemdCgroup = true",
	}
	s := start(t, traced.Options{Options: rig.Options{Runtimes: []rig.Runtime{runtime}}})
	s.Runtime = runtime
	systemd := s.systemd()
	slice := strings.ReplaceAll(s.Rig.Name, "-", "_") + ".slice"
	t.Cleanup(func() {
		all, _ := filepath.Glob(filepath.Join(cgroups, "*", slice))
		for _, dir := range append(all, filepath.Join(cgroups, slice)) {
			check(t, removeBelow(dir))
		}
	})
	s.cgroup = slice
	check(t, systemd.Signal(syscall.SIGSTOP))
	time.AfterFunc(frozenFor, func() { _ = systemd.Signal(syscall.SIGCONT) })
	p := s.pod("busy-systemd")
	check(t, p.start(image.Busybox))
	e := p.explained()
	seeded.Named(t, seeded.Cause{ID: "systemd-cgroup", How: "a systemd that stands still for " + frozenFor.String(), Parts: seeded.Runc, Also: also()}, e)
	check(t, s.Rig.CRI().RemovePods(t.Context()))
}
