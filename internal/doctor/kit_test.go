package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/host"
)

// place is a host in a directory.
type place struct {
	t    *testing.T
	root string
	env  map[string]string
}

// self is a program of this module: the test.
func self(t *testing.T) string {
	t.Helper()
	p, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newPlace returns a host on which all is well: containerd 2.x with a traced runc.
func newPlace(t *testing.T) *place {
	p := &place{t: t, root: t.TempDir(), env: map[string]string{"PATH": "/usr/local/bin:/usr/bin"}}
	p.put("usr/bin/containerd", "#!/bin/sh\n", 0o755)
	p.put("usr/bin/containerd-shim-runc-v2", "#!/bin/sh\n", 0o755)
	p.program("usr/local/bin/containerd-shim-traced-v2")
	p.program("usr/local/bin/shimtrace-relay")
	p.link("usr/local/bin/containerd-shim-runc-traced-v2", "containerd-shim-traced-v2")
	p.put("etc/containerd/config.toml", traced, 0o644)
	return p
}

const traced = `version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc-traced]
  runtime_type = 'io.containerd.runc.v2'
  runtime_path = '/usr/local/bin/containerd-shim-runc-traced-v2'
`

func (p *place) path(name string) string {
	path := filepath.Join(p.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func (p *place) put(name, content string, mode os.FileMode) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(content), mode); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(p.path(name), mode); err != nil {
		p.t.Fatal(err)
	}
}

// program puts a program of shimtrace there.
func (p *place) program(name string) {
	p.t.Helper()
	if err := os.Link(self(p.t), p.path(name)); err != nil {
		if err := os.Symlink(self(p.t), p.path(name)); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *place) link(name, target string) {
	p.t.Helper()
	if err := os.Symlink(target, p.path(name)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) remove(name string) {
	p.t.Helper()
	if err := os.RemoveAll(filepath.Join(p.root, name)); err != nil {
		p.t.Fatal(err)
	}
}

// examine returns what doctor finds.
func (p *place) examine() []Finding {
	p.t.Helper()
	return examine(p.t, p.options())
}

func (p *place) options() Options {
	return Options{Root: p.root, Proc: host.Proc("/proc"), Getenv: func(k string) string { return p.env[k] }, Tool: self(p.t), Send: true}
}

func examine(t *testing.T, o Options) (all []Finding) {
	t.Helper()
	err := Run(context.Background(), o, func(string) {}, func(f Finding) error {
		all = append(all, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantOne checks that there is one finding of that check and level with the text, and no
// worse one.
func wantOne(t *testing.T, all []Finding, check string, level Level, text string) {
	t.Helper()
	n := 0
	for _, f := range all {
		switch {
		case f.Check == check && f.Level == level && strings.Contains(f.What, text):
			n++
			if f.Do == "" && level != OK {
				t.Errorf("%q does not say what to do", f.What)
			}
		case f.Level == Error:
			t.Errorf("also found: %+v", f)
		}
	}
	if n != 1 {
		t.Errorf("%d findings of %s (%s) with %q in %+v", n, check, level, text, all)
	}
}
