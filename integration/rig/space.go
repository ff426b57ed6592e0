package rig

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A space is a pair of mount and network namespaces, kept by a process that
// does nothing but wait for the end of its standard input. So it ends with us,
// however we end, and leaves no mount or name on the host.
//
// /run is an empty directory of the rig inside: it has containerd's default
// places for sockets, runc's state and network namespaces, which no option
// moves for every client and version.
type space struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// spaceScript gets the rig's directory and a busybox. It runs before any process of the rig
// does, so everything that is mounted later is the scenario's.
const spaceScript = `set -e
mount --bind "$1/run" /run
mkdir -p /var/lib/cni
mount --bind "$1/cni" /var/lib/cni
"$2" ip link set lo up
echo ready
exec cat`

func newSpace(dir, busybox string) (*space, error) {
	if err := keepResolvConf(filepath.Join(dir, "run")); err != nil {
		return nil, err
	}
	cmd := exec.Command("unshare", "--mount", "--net", "--propagation", "private",
		"sh", "-c", spaceScript, "sh", dir, busybox)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	// Not in our group: an interrupt must not reach it before Close is done.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	s := &space{cmd: cmd, stdin: stdin}
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		err := s.close() // waits, so that stderr is complete
		return nil, errors.Join(fmt.Errorf("make namespaces: %s", stderr.String()), err)
	}
	return s, nil
}

func (s *space) close() error {
	s.stdin.Close()
	return s.cmd.Wait()
}

func (s *space) path(kind string) string {
	return filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), "ns", kind)
}

// enter is nsenter's options for the space.
func (s *space) enter() []string {
	return []string{"--mount=" + s.path("mnt"), "--net=" + s.path("net")}
}

// mountPoints is what is mounted inside.
func (s *space) mountPoints() (map[string]bool, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", s.cmd.Process.Pid))
	if err != nil {
		return nil, fmt.Errorf("list the rig's mounts: %w", err)
	}
	points := map[string]bool{}
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 {
			points[f[4]] = true
		}
	}
	return points, nil
}

// keepResolvConf copies the name servers into the new /run when the machine
// keeps them in the old one, because CRI gives every pod that file.
func keepResolvConf(run string) error {
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return fmt.Errorf("find resolv.conf: %w", err)
	}
	rel, ok := strings.CutPrefix(target, "/run/")
	if !ok {
		return nil
	}
	data, err := os.ReadFile(target)
	if err != nil {
		return err
	}
	dst := filepath.Join(run, rel)
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	return os.WriteFile(dst, data, 0o644)
}
