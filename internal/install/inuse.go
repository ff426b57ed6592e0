package install

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/shim/control"
)

// relays returns the processes that run what is installed, without the guard, which ends
// a second after the last relay.
func (in *installer) relays() []string {
	var programs []string
	for _, name := range []string{shimName, relayName} {
		if path, err := filepath.EvalSymlinks(in.target(name)); err == nil {
			programs = append(programs, path)
		}
	}
	var pids []string
	exes, _ := filepath.Glob(filepath.Join(in.proc, "[0-9]*", "exe"))
	for _, exe := range exes {
		// A replaced program's link ends in " (deleted)".
		if p, err := os.Readlink(exe); err == nil && slices.Contains(programs, strings.TrimSuffix(p, " (deleted)")) {
			pid := filepath.Base(filepath.Dir(exe))
			args, _ := os.ReadFile(filepath.Join(in.proc, pid, "cmdline"))
			if !strings.HasSuffix(string(args), "\x00guard\x00") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// relaysBelow returns the sandboxes of another root whose relays run: who works below
// another root does not see its processes, but can reach their sockets.
func (in *installer) relaysBelow() (sandboxes []string) {
	cfg, _ := config.Load("", in.opts.Getenv)
	all, _ := control.List(in.below(cfg.Relay.StateDir))
	for _, r := range all {
		if control.Listens(context.Background(), in.below(r.RelaySock)) {
			sandboxes = append(sandboxes, r.Sandbox)
		}
	}
	return sandboxes
}
