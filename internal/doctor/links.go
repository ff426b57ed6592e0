package doctor

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/shimtrace/shimtrace/internal/programs"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// links looks at the names under which containerd finds our shim.
func links(_ context.Context, s *site) (all []Finding) {
	first := make(map[string]link)
	for _, l := range s.links {
		name := filepath.Base(l.path)
		do := "shimtrace install " + l.inner.String() + " --bindir " + filepath.Dir(l.path)
		before, shadowed := first[name]
		switch {
		case l.target == "":
			all = append(all, Finding{Level: Error, What: "the link leads nowhere: containers of its runtime fail to start", Where: l.path, Do: do})
		case !l.ours:
			all = append(all, Finding{Level: Error, What: "it has the name of one of shimtrace's links, but is not its shim", Where: l.path, Do: do + " --force, or remove it"})
		case shadowed && before.target != l.target:
			all = append(all, Finding{Level: Warning, What: fmt.Sprintf("%s comes first on containerd's PATH, and is another program", before.path), Where: l.path, Do: "remove one of the two"})
		case s.relayOf(l) == "":
			all = append(all, Finding{Level: Error, What: fmt.Sprintf("%s is not beside its shim: its containers run untraced", shimname.RelayProgram), Where: filepath.Dir(l.target), Do: do})
		default:
			all = append(all, Finding{Level: OK, What: "wraps " + l.inner.File(), Where: l.path})
		}
		if !shadowed {
			first[name] = l
		}
	}
	if len(s.links) == 0 {
		all = append(all, Finding{Level: Error, What: "no runtime is linked to " + shimname.Program + ": nothing is traced", Do: "shimtrace install"})
	}
	return all
}

// relayOf returns the program from which a link's shim starts its relays, which is beside it
// (standby.Program); empty if there is none.
func (s *site) relayOf(l link) string {
	if p := filepath.Join(filepath.Dir(l.target), shimname.RelayProgram); programs.Executable(p) {
		return p
	}
	return ""
}
