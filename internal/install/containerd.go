package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/containerd"
	"github.com/shimtrace/shimtrace/internal/containerdconf"
)

// Containerd says what to do with containerd.
type Containerd struct {
	// Config is its configuration; empty: all at the known locations.
	Config string
	// Address is its socket; empty: as the configuration says.
	Address string
	// Restart has systemd restart it, or Command if that is not empty, and then asks its
	// CRI what it has loaded.
	Restart bool
	Command string
}

// findContainerd finds containerd's configurations.
func (in *installer) findContainerd() error {
	o := in.opts.Containerd
	if o != nil && o.Config != "" {
		c, err := containerdconf.Open(in.opts.Root, o.Config)
		if errors.Is(err, os.ErrNotExist) {
			return console.NothingFound("%w", err)
		}
		in.containerd = []containerdconf.Config{c}
		return err
	}
	var unread []error
	in.containerd, unread = containerdconf.Find(in.opts.Root)
	if o != nil && !in.opts.Uninstall && len(unread) > 0 {
		return errors.Join(unread...)
	}
	for _, err := range unread {
		in.opts.Warn("%v", err)
	}
	if o != nil && len(in.containerd) == 0 && !in.opts.Uninstall {
		version := in.containerdVersion()
		switch {
		case version == "":
			return console.NothingFound("there is no containerd: neither its configuration nor its program is here; --containerd-config names a configuration")
		case containerd.Before(version, "2.0"):
			in.containerd = append(in.containerd, containerdconf.New(2))
		default:
			in.containerd = append(in.containerd, containerdconf.New(3))
		}
	}
	return nil
}

// writes reports whether install itself writes to the file in which c is to be changed.
func (in *installer) writes(c containerdconf.Config) bool {
	return in.opts.Containerd != nil && !c.ByHand
}

// planFiles returns the changes of containerd's configuration.
func (in *installer) planFiles(runtimes []tracedRuntime) (changes []containerdconf.Change, err error) {
	var errs []error
	for _, c := range in.containerd {
		if !in.writes(c) {
			continue
		}
		var handlers []containerdconf.Runtime
		for _, r := range runtimes {
			for _, s := range r.Sections {
				if s.config.File == c.File && !slices.ContainsFunc(handlers, func(h containerdconf.Runtime) bool { return h.Name == s.handler.Name }) {
					handlers = append(handlers, s.handler)
				}
			}
		}
		change, err := containerdconf.Plan(in.opts.Root, c, handlers, in.opts.Force)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		changes = append(changes, change)
	}
	return changes, errors.Join(errs...)
}

// planFilesRemoval returns the changes that take our handlers out of containerd's
// configuration, unless single shims are uninstalled.
func (in *installer) planFilesRemoval() ([]containerdconf.Change, error) {
	if len(in.inners) > 0 {
		return nil, nil
	}
	return containerdconf.PlanRemoval(in.opts.Root, in.containerd, in.opts.Force)
}

// restartTime bounds a restart of containerd until its CRI answers: it first looks at all
// its containers.
const restartTime = time.Minute

// restart restarts containerd if that was asked for and something has changed, and waits
// until it has loaded the handlers. If it does not load them, the configuration is put back
// as it was, and containerd restarted again.
func (in *installer) restart(ctx context.Context, changes []containerdconf.Change) (bool, error) {
	o := in.opts.Containerd
	changed := slices.ContainsFunc(changes, func(c containerdconf.Change) bool { return c.Action != containerdconf.Keep })
	if o == nil || !o.Restart || in.opts.DryRun || !changed {
		return false, nil
	}
	err := in.restartAndLook(ctx, changes)
	if err == nil {
		return true, nil
	}
	in.opts.Warn("%v: the configuration is put back as it was", err)
	for _, c := range slices.Backward(changes) {
		err = errors.Join(err, c.Undo())
	}
	return false, errors.Join(err, in.restartOnly(context.WithoutCancel(ctx), changes))
}

func (in *installer) restartAndLook(ctx context.Context, changes []containerdconf.Change) error {
	if err := in.restartOnly(ctx, changes); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, restartTime)
	defer cancel()
	for _, c := range changes {
		if c.Action == containerdconf.Keep {
			continue
		}
		socket := in.socket(c.Config)
		in.opts.Step("waiting for CRI at " + socket)
		var want []containerd.Handler
		for _, h := range c.Handlers {
			want = append(want, containerd.Handler{Name: h.Name, Type: h.Type(), Path: h.Path()})
		}
		if err := containerd.Await(ctx, socket, want); err != nil {
			return fmt.Errorf("containerd was restarted, but: %w: its log says why (journalctl -u containerd)", err)
		}
	}
	return nil
}

func (in *installer) restartOnly(ctx context.Context, changes []containerdconf.Change) error {
	ctx, cancel := context.WithTimeout(ctx, restartTime)
	defer cancel()
	in.opts.Step("restarting containerd")
	if command := in.opts.Containerd.Command; command != "" {
		return containerd.RestartWith(ctx, command)
	}
	var units []string
	for _, c := range changes {
		units = append(units, c.Config.Units...)
	}
	return containerd.Restart(ctx, units)
}

// socket is where the containerd of a configuration serves.
func (in *installer) socket(c containerdconf.Config) string {
	if o := in.opts.Containerd; o != nil && o.Address != "" {
		return o.Address
	}
	return in.below(c.Address)
}

// containerdVersion returns the version of the containerd on PATH; below another root, of
// the one whose socket is there; empty if it cannot be determined, as in an image.
func (in *installer) containerdVersion() string {
	if in.version != nil {
		return *in.version
	}
	version := ""
	if program := in.lookPath("containerd"); program != "" && in.opts.Root == "/" {
		version = containerd.Version(program)
	}
	for _, c := range in.containerd {
		if socket := in.socket(c); version == "" && c.Address != "" {
			version, _ = containerd.AskVersion(context.Background(), socket)
		}
	}
	in.version = &version
	return version
}
