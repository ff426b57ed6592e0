package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A MissingError lists what a machine lacks to run a rig, and how to get it.
type MissingError struct{ What []string }

func (e *MissingError) Error() string { return "the rig needs " + strings.Join(e.What, "; ") }

const (
	// cniPlugins is where Debian's containernetworking-plugins puts them.
	cniPlugins = "/usr/lib/cni"
	systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// missing is nil or a *MissingError with everything absent at once.
func (r *Rig) missing() error {
	var what, packages []string
	if os.Geteuid() != 0 {
		what = append(what, "root")
	}
	for _, t := range r.programs() {
		if !t.Built(r.tools) {
			what = append(what, t.String()+" in "+r.tools+" (go -C integration run ./tools)")
		}
	}
	for _, need := range r.needs() {
		if need.absent() {
			packages = append(packages, need.pkg)
		}
	}
	if packages != nil {
		what = append(what, "packages (apt-get install "+strings.Join(packages, " ")+")")
	}
	if what == nil {
		return nil
	}
	return &MissingError{what}
}

// A need is a program of this machine and the Debian package that has it.
type need struct{ program, pkg string }

// hostPrograms are what a rig of version Host runs.
var hostPrograms = []need{{"containerd", "containerd"}, {"ctr", "containerd"}, {"containerd-shim-runc-v2", "containerd"}, {"runc", "runc"}}

// HostHas reports whether this machine has what a rig of version Host runs.
func HostHas() bool {
	return !slices.ContainsFunc(hostPrograms, need.absent)
}

func (n need) absent() bool {
	_, err := exec.LookPath(n.program)
	return err != nil
}

func (r *Rig) needs() []need {
	all := []need{{"nsenter", "util-linux"}, {r.busybox(), "busybox-static"}}
	if r.opts.Version == Host {
		all = append(all, hostPrograms...)
	}
	if r.opts.Lean {
		return all
	}
	return append(all, need{"ip", "iproute2"}, need{"iptables", "iptables"},
		need{filepath.Join(cniPlugins, "bridge"), "containernetworking-plugins"})
}

func joinPath(dirs []string) string { return strings.Join(dirs, string(os.PathListSeparator)) }
