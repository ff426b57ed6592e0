package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/shimtrace/shimtrace/integration/toolset"
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
func missing(tools string, containerd toolset.Tool) error {
	var what, packages []string
	if os.Geteuid() != 0 {
		what = append(what, "root")
	}
	for _, t := range []toolset.Tool{containerd, toolset.Runc, toolset.Nerdctl, toolset.Crictl} {
		if !t.Built(tools) {
			what = append(what, t.String()+" in "+tools+" (go -C integration run ./tools)")
		}
	}
	for _, need := range []struct{ program, pkg string }{
		{"nsenter", "util-linux"},
		{"ip", "iproute2"},
		{"iptables", "iptables"},
		{"busybox", "busybox-static"},
		{filepath.Join(cniPlugins, "bridge"), "containernetworking-plugins"},
	} {
		if _, err := exec.LookPath(need.program); err != nil {
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

func joinPath(dirs []string) string { return strings.Join(dirs, string(os.PathListSeparator)) }
