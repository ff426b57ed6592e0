// Package traced puts shimtrace, built from this tree, into a rig: the wrapped
// runtime, its configuration and its journal. Tests and the demo use it.
package traced

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/shimname"
	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

// runc is the runc shim, wrapped, as CRI and ctr start it: CRI gives runc's shim
// its options by the runtime's type.
const runc = "runc-traced"

// NerdctlRuntime is the same for nerdctl, which takes a runtime's type only, and
// gives runc's options to types that begin as this one does.
const NerdctlRuntime = "io.containerd.runc.traced"

// Root is the root of the tree.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	if !filepath.IsAbs(file) {
		// Built with -trimpath, as "make demo" does, which runs in integration.
		file, _ = filepath.Abs("traced/install.go")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := tempdir.Make()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "./cmd/...")
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("build shimtrace: %w\n%s", err, out)
	}
	for _, link := range []string{shimname.Runc.Link(), shimname.RuncWithOptions.Link()} {
		if err := os.Symlink(shimname.Program, filepath.Join(dir, link)); err != nil {
			return dir, err
		}
	}
	return dir, nil
})

// Bin is the directory of the binaries, built once per process, and of the links
// that wrap runc.
func Bin() (string, error) { return build() }

// Clean removes what Bin has built; for the end of a process.
func Clean() {
	if dir, err := build(); err == nil {
		os.RemoveAll(dir)
	}
}

// ImpatientShipper writes, into dir, a program for [export] shipper: the tool, ending
// sooner than it does by itself when there is nothing to ship, and so before a rig
// looks for what was left behind.
func ImpatientShipper(dir string) (string, error) {
	bin, err := Bin()
	if err != nil {
		return "", err
	}
	script := filepath.Join(dir, "ship")
	text := fmt.Sprintf("#!/bin/sh\nexec %s/shimtrace \"$@\" --idle 1s\n", bin)
	return script, os.WriteFile(script, []byte(text), 0o755)
}

// Patient is the section of a configuration by which containers are traced on a machine, too,
// that is so busy that a relay is not ready in the time it has by default.
const Patient = "[relay]\nready_timeout = '30s'\n"

// Install is shimtrace in a rig.
type Install struct {
	Rig     *rig.Rig
	Bin     string
	Journal string   // directory
	Config  string   // file
	Shim    string   // the link that wraps runc's shim
	Path    []string // what containerd searches for shims before its own
	Runtime rig.Runtime
}

// Options are what can differ between installs.
type Options struct {
	rig.Options
	// Config is further lines of shimtrace's configuration, which may begin with
	// keys of its section [journal].
	Config string
	// Journal is the journal's directory; one beside the configuration if empty.
	Journal string
}

// New starts a rig with the wrapped runc in it.
func New(ctx context.Context, opts Options) (*Install, error) {
	in, ropts, err := prepare(opts)
	if err != nil {
		return nil, err
	}
	if in.Rig, err = rig.New(ctx, ropts); err != nil {
		return nil, err
	}
	return in, nil
}

// Start starts a rig with the wrapped runc in it, for the length of a test.
func Start(t rig.TB, opts Options) *Install {
	t.Helper()
	in, ropts, err := prepare(opts)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(in.Config)) })
	in.Rig = rig.Start(t, ropts)
	killUnder(t, in.Rig)
	return in
}

// Close ends the rig of New and removes configuration and journal.
func (in *Install) Close() error {
	defer os.RemoveAll(filepath.Dir(in.Config))
	return in.Rig.Close()
}

// WithoutGuard keeps relays from having a guard for the length of a test: what cannot be
// locked is nobody's.
func (in *Install) WithoutGuard(t rig.TB) {
	t.Helper()
	lock := guard.LockPath(filepath.Join(in.Rig.Dir, "run/shimtrace"))
	if err := os.MkdirAll(lock, 0o700); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { os.Remove(lock) })
}

func prepare(opts Options) (*Install, rig.Options, error) {
	bin, err := Bin()
	if err != nil {
		return nil, opts.Options, err
	}
	dir, err := tempdir.Make()
	if err != nil {
		return nil, opts.Options, err
	}
	in := &Install{
		Bin:     bin,
		Journal: filepath.Join(dir, "journal"),
		Config:  filepath.Join(dir, "config.toml"),
		Shim:    filepath.Join(bin, shimname.Runc.Link()),
	}
	in.Runtime = rig.Runtime{Name: runc, Type: rig.Runc.Type, Path: in.Shim}
	if opts.Version == rig.V16 || opts.Version == rig.Host {
		// Its client library forgets runtime_path (WithRuntimePath in task_opts.go of
		// 1.6.20 sets what nothing reads).
		in.Runtime = rig.Runtime{Name: runc, Type: NerdctlRuntime}
	}
	if opts.Journal != "" {
		in.Journal = opts.Journal
	}
	text := fmt.Sprintf("%s[journal]\ndir = %q\n%s", Patient, in.Journal, opts.Config)
	if err := os.WriteFile(in.Config, []byte(text), 0o600); err != nil {
		return nil, opts.Options, err
	}
	ropts := opts.Options
	ropts.Path = append(ropts.Path, bin)
	in.Path = ropts.Path
	ropts.Env = append(ropts.Env, "SHIMTRACE_CONFIG="+in.Config)
	ropts.Runtimes = append(ropts.Runtimes, in.Runtime)
	return in, ropts, nil
}
