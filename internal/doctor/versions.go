package doctor

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"path/filepath"

	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// versions checks whether the tool, the installed shims, the guard and the relays are of
// one version.
func versions(ctx context.Context, s *site) (all []Finding) {
	own := buildOf(s.Tool)
	seen := make(map[string]bool)
	for _, l := range s.links {
		if l.target == "" || seen[l.target] || !l.ours {
			continue
		}
		seen[l.target] = true
		for _, program := range []string{l.target, s.relayOf(l)} {
			if b := buildOf(program); own != "" && program != "" && b != own {
				all = append(all, Finding{Level: Warning, What: fmt.Sprintf("this program is of version %s, this tool of %s", b, own), Where: program, Do: "install all from one release: shimtrace install --bindir " + filepath.Dir(l.path)})
			}
		}
	}
	if s.live() {
		all = append(all, s.running(ctx)...)
	}
	if len(all) == 0 {
		all = append(all, Finding{Level: OK, What: "all of version " + own, Where: s.Tool})
	}
	return all
}

// running looks at the relays and the guard, which go on with the program that they were
// started with.
func (s *site) running(ctx context.Context) (all []Finding) {
	self, relays, err := guard.Ask(ctx, s.config.Relay.StateDir)
	if err != nil {
		return nil
	}
	installed := ""
	for _, l := range s.links {
		if l.target != "" && filepath.Base(l.target) == shimname.Program {
			installed = buildOf(s.relayOf(l))
			break
		}
	}
	old := 0
	for _, r := range relays {
		if r.Build != installed {
			old++
		}
	}
	if installed != "" && (old > 0 || self.Build != installed) {
		all = append(all, Finding{Level: Warning, What: fmt.Sprintf("%d of %d relays, or the guard, run another version than the installed %s", old, len(relays), installed), Where: fmt.Sprintf("guard, process %d", self.PID), Do: "shimtrace upgrade, which no pod notices"})
	}
	return all
}

// buildOf returns a program's version as its processes tell the guard.
func buildOf(program string) string {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return ""
	}
	return guard.BuildOf(info)
}
