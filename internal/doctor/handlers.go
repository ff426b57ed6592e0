package doctor

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/shimtrace/shimtrace/internal/containerd"
	"github.com/shimtrace/shimtrace/internal/containerdconf"
	"github.com/shimtrace/shimtrace/internal/programs"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// handlers looks at the traced runtime handlers: in the files, and as CRI has loaded them.
func handlers(ctx context.Context, s *site) (all []Finding) {
	traced := 0
	for _, c := range s.configs {
		for _, r := range c.Runtimes {
			n, program, ok := tracedBy(r)
			if !ok {
				continue
			}
			traced++
			all = append(all, s.handler(c, r, n, program))
		}
	}
	if traced == 0 && len(s.configs) > 0 {
		all = append(all, Finding{Level: Warning, What: "no handler of CRI is traced, so Kubernetes and crictl cannot ask for one", Where: s.configs[0].File, Do: "shimtrace install --containerd; ctr and nerdctl need none"})
	}
	return append(all, s.loaded(ctx)...)
}

// tracedBy returns the inner shim of a traced handler, and the shim's program or name.
func tracedBy(r containerdconf.Runtime) (n shimname.Name, program string, ok bool) {
	if n, ok = shimname.ParseLink(r.Path()); ok {
		return n, r.Path(), true
	}
	file, ok := shimname.FileOfType(r.Type())
	if r.Path() != "" || !ok {
		return n, "", false
	}
	n, ok = shimname.ParseLink(file)
	return n, file, ok
}

func (s *site) handler(c containerdconf.Config, r containerdconf.Runtime, n shimname.Name, program string) Finding {
	path := program
	if !filepath.IsAbs(program) {
		path = s.lookPath(program)
	}
	f := Finding{Level: OK, What: fmt.Sprintf("handler %s is traced: %s", r.Name, cmp.Or(path, program)), Where: c.File}
	bad := func(what, do string) Finding {
		f.Level, f.What, f.Do = Error, "handler "+r.Name+" "+what, do
		return f
	}
	switch {
	case path == "":
		return bad(fmt.Sprintf("needs %s, which is not on containerd's PATH (%s)", program, strings.Join(s.path, ":")), "shimtrace install "+n.String()+", into a directory of that PATH by --bindir")
	case !programs.Executable(s.in(path)):
		return bad(fmt.Sprintf("needs %s, which is not there or cannot be executed: its pods fail to start", path), "shimtrace install "+n.String()+" --bindir "+filepath.Dir(path))
	case r.Path() != "" && containerd.Before(s.version, "1.7"):
		return bad("is told by runtime_path, which containerd "+s.version+" ignores: its pods are not traced", "write runtime_type = \""+shimname.RuncWithOptions.RuntimeType()+"\" without runtime_path; shimtrace install --containerd does")
	case n == shimname.Runc && r.Path() != "" && r.Type() != "io.containerd.runc.v2":
		return bad("has runtime_type "+r.Type()+", to which containerd gives no options of runc", "write runtime_type = \"io.containerd.runc.v2\" beside runtime_path")
	}
	return f
}

// loaded compares the files with what the CRI of the running containerd has loaded.
func (s *site) loaded(ctx context.Context) (all []Finding) {
	if len(s.daemons) == 0 || len(s.configs) == 0 {
		return nil
	}
	d := s.daemons[0]
	for _, c := range s.configs {
		if c.File != configOf(d) {
			continue
		}
		socket := cmp.Or(d.Address, c.Address)
		now, err := containerd.Handlers(ctx, socket)
		if err != nil {
			return append(all, Finding{Level: Warning, What: "CRI does not answer, so pods cannot be started: " + err.Error(), Where: socket, Do: "look into containerd's log: journalctl -u containerd"})
		}
		for _, r := range c.Runtimes {
			if _, _, ok := tracedBy(r); !ok {
				continue
			}
			if h, ok := now[r.Name]; !ok || h.Type != r.Type() || h.Path != r.Path() {
				all = append(all, Finding{Level: Error, What: fmt.Sprintf("CRI has not loaded handler %s as the configuration has it", r.Name), Where: socket, Do: "systemctl restart containerd, and look into its log if that does not help"})
			}
		}
	}
	return all
}
