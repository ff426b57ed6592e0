package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/shimtrace/shimtrace/integration/cri"
	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// Version is a line of containerd releases.
type Version string

// The versions that a rig can run; toolset has the exact releases.
const (
	V24 Version = "2.4"
	V17 Version = "1.7"
	V16 Version = "1.6" // Debian 12's own, with its runc
	// Host is what this machine has on PATH, with its runc; for a lean rig.
	Host Version = "host"
)

// Versions is for tests that run on each.
var Versions = []Version{V24, V17, V16}

// Tools has containerd, ctr and runc's shim of each version.
var Tools = map[Version]toolset.Tool{V24: toolset.Containerd24, V17: toolset.Containerd17, V16: toolset.Containerd16}

// Network is the CNI network of pods, and of nerdctl run --net.
const Network = "rig"

// Options say what a rig is made of. The zero value is containerd 2.4 with
// plain runc.
type Options struct {
	Version Version // V24 if empty
	// Env adds to the environment of containerd, and so of the shims. Nothing
	// else is inherited from this process: no OTEL_*, no SHIMTRACE_*.
	Env []string
	// Path has directories that containerd searches for shims before its own.
	Path []string
	// Runtimes are handlers of CRI besides Runc, which is always there.
	Runtimes []Runtime
	// CRI is further lines of the section of CRI's runtime.
	CRI string
	// TOML is further sections of containerd's configuration.
	TOML string
	// CrictlArgs are options of every run of crictl.
	CrictlArgs []string
	// Debug makes containerd and the shims log at debug level.
	Debug bool
	// Lean does without nerdctl, crictl and CNI's plugins, which take minutes to build
	// or have to be installed. Pods are on the rig's own network then ([Rig.CRI]).
	Lean bool
	// Timeout bounds each run of a client, and waiting for containerd. Three
	// minutes if zero.
	Timeout time.Duration
}

// A Rig is a running containerd and where it lives. Clients may run
// concurrently; Kill, Stop, Restart and Close may not.
type Rig struct {
	// Name is unique to the rig: the containerd namespace of ctr and nerdctl,
	// and the parent of all cgroups.
	Name string
	// Dir holds everything the rig writes. Tests may add files to it.
	Dir string

	opts       Options
	containerd toolset.Tool // none if it is the host's
	tools      string       // root of the toolset
	owner      *os.File
	cri        *cri.Client
	space      *space
	daemon     atomic.Pointer[daemon]
	mounts     map[string]bool // mount points before containerd ran
}

// New starts a rig: containerd is up, CRI too, and the images image.Busybox
// and image.Pause are there for ctr, nerdctl and CRI. It returns a
// [*MissingError] when the machine lacks something. It first clears away rigs
// whose process died before their Close.
func New(ctx context.Context, opts Options) (*Rig, error) {
	if opts.Version == "" {
		opts.Version = V24
	}
	if opts.Timeout == 0 {
		opts.Timeout = 3 * time.Minute
	}
	containerd, ok := Tools[opts.Version]
	if !ok && opts.Version != Host {
		return nil, fmt.Errorf("start rig: containerd version %q is not one of %q", opts.Version, Versions)
	}
	tools, err := toolset.Root()
	if err != nil {
		return nil, err
	}
	r := &Rig{opts: opts, containerd: containerd, tools: tools}
	if err := r.missing(); err != nil {
		return nil, err
	}
	images, err := image.Archive(tools, r.busybox())
	if err != nil {
		return nil, err
	}
	sweep()

	if err := r.start(ctx, images); err != nil {
		err = fmt.Errorf("start rig: %w\n%s", err, tail(r.Log()))
		return nil, errors.Join(err, r.destroy())
	}
	return r, nil
}

func (r *Rig) start(ctx context.Context, images string) error {
	if err := r.makeDir(); err != nil {
		return err
	}
	if err := r.writeConfig(); err != nil {
		return err
	}
	var err error
	if r.space, err = newSpace(r.Dir, r.busybox()); err != nil {
		return err
	}
	if r.cri, err = cri.New(r.Address()); err != nil {
		return err
	}
	if r.mounts, err = r.space.mountPoints(); err != nil {
		return err
	}
	if err := r.startDaemon(ctx); err != nil {
		return err
	}
	for _, namespace := range []string{r.Name, criNamespace} {
		if err := r.Ctr("--namespace", namespace, "images", "import", images).Check(); err != nil {
			return err
		}
	}
	return r.waitImages(ctx)
}

// waitImages waits until CRI knows the images, which it learns by events: a pod that
// starts before it knows the pause image has it pulled.
func (r *Rig) waitImages(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	for _, name := range []string{image.Busybox, image.Pause} {
		for {
			err := r.cri.KnowsImage(ctx, name)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("CRI does not know %s: %w", name, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// criNamespace is where CRI keeps its containers and images.
const criNamespace = "k8s.io"

// maxDir leaves a socket's path, 106 bytes at most, room for a directory and
// the 64 digits of a hash.
const maxDir = 34

func (r *Rig) makeDir() error {
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		return err
	}
	r.Dir, r.Name = dir, filepath.Base(dir)
	if len(dir) > maxDir {
		return fmt.Errorf("%s is too long for the sockets in it: set TMPDIR to a shorter path", dir)
	}
	if r.owner, err = own(dir); err != nil {
		return err
	}
	for _, sub := range []string{"run", "cni", "cni.d", "cri", "home", "logs", "sockets", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Close removes all containers and pods, stops containerd, and waits half a
// minute at most for the shims to be gone. What is then left of the scenario is
// removed by force and returned as an error, as is a containerd that had ended
// without being told to.
func (r *Rig) Close() error {
	err := r.removeContainers()
	err = errors.Join(err, r.Stop(), r.waitNoLeaks(leakPatience))
	return errors.Join(err, r.destroy())
}

// leakPatience is how long shims get to end after their last container: some
// linger for a moment to answer late calls, or wait for a processor.
const leakPatience = 30 * time.Second

// removeContainers does as an orderly user would, so that whatever survives
// it is a leak. A containerd that a test has killed is started for it.
func (r *Rig) removeContainers() error {
	var errs []error
	if d := r.daemon.Load(); d != nil && d.ended() {
		errs = append(errs, fmt.Errorf("containerd ended by itself: %s", d.cmd.ProcessState))
		r.daemon.Store(nil)
	}
	if r.daemon.Load() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), r.opts.Timeout)
		defer cancel()
		if err := r.startDaemon(ctx); err != nil {
			return errors.Join(append(errs, fmt.Errorf("start containerd to remove the containers: %w", err))...)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.opts.Timeout)
	defer cancel()
	errs = append(errs, r.cri.RemovePods(ctx))
	tasks := r.Ctr("tasks", "list", "--quiet")
	errs = append(errs, tasks.Check())
	for _, id := range tasks.Fields() {
		errs = append(errs, r.Ctr("tasks", "delete", "--force", id).Check())
	}
	containers := r.Ctr("containers", "list", "--quiet")
	errs = append(errs, containers.Check())
	for _, id := range containers.Fields() {
		errs = append(errs, r.Ctr("containers", "delete", id).Check())
	}
	return errors.Join(errs...)
}

// destroy ends and removes everything, whatever its state.
func (r *Rig) destroy() error {
	var errs []error
	if r.daemon.Load() != nil {
		errs = append(errs, r.Kill())
	}
	if r.cri != nil {
		errs = append(errs, r.cri.Close())
	}
	if r.space != nil {
		errs = append(errs, r.space.close())
	}
	if r.Dir != "" {
		errs = append(errs, obliterate(r.Dir))
	}
	if r.owner != nil {
		errs = append(errs, r.owner.Close())
	}
	return errors.Join(errs...)
}

// Command is a program to run in the rig's namespaces, with the environment of
// a client: the toolset first on PATH, CONTAINERD_ADDRESS and
// CONTAINERD_NAMESPACE. The caller may add to its Env.
func (r *Rig) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append(r.space.enter(), append([]string{"--", program}, args...)...)...)
	cmd.Env = append(r.baseEnv(nil),
		"CONTAINERD_ADDRESS="+r.Address(),
		"CONTAINERD_NAMESPACE="+r.Name,
		"NERDCTL_TOML="+filepath.Join(r.Dir, "nerdctl.toml"))
	// A detached descendant that keeps our pipe must not keep us.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// baseEnv is the environment of everything the rig runs.
func (r *Rig) baseEnv(first []string) []string {
	path := append([]string{}, first...)
	for _, t := range r.programs() {
		path = append(path, t.Dir(r.tools))
	}
	path = append(path, systemPath)
	return []string{
		"PATH=" + joinPath(path),
		"HOME=" + filepath.Join(r.Dir, "home"),
		"TMPDIR=" + filepath.Join(r.Dir, "tmp"),
	}
}

// programs are the tools that a rig runs, the first on PATH first.
func (r *Rig) programs() []toolset.Tool {
	switch {
	case r.opts.Version == Host:
		return nil
	case r.opts.Lean:
		return []toolset.Tool{r.containerd}
	}
	return []toolset.Tool{r.containerd, toolset.Runc, toolset.Nerdctl, toolset.Crictl}
}

// CRI is a client of the rig's CRI, for what needs no crictl.
func (r *Rig) CRI() *cri.Client { return r.cri }

// busybox is the path of a busybox that needs no libraries.
func (r *Rig) busybox() string {
	unpacked := filepath.Join(toolset.Busybox.Dir(r.tools), "busybox")
	if _, err := os.Stat(unpacked); r.opts.Lean && err == nil {
		return unpacked
	}
	return image.BusyboxPath
}

// Address is the path of containerd's gRPC socket.
func (r *Rig) Address() string { return filepath.Join(r.Dir, "c.sock") }

// NetNS is the path of the network namespace that containerd and the shims run
// in, for a collector to listen there.
func (r *Rig) NetNS() string { return r.space.path("net") }
