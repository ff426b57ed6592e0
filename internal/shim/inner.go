package shim

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// findInner returns the path of the shim to wrap: for delete the one that was started, else
// what the configuration says for this runtime, else the obvious one. A mistake in the
// configuration never hides a shim that would be found without us.
func (w wrapper) findInner(cfg config.Config, log *slog.Logger) (string, error) {
	wrapped := w.Wrapped()
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own executable: %w", err)
	}
	if started := state.StartedInner(w.Bundle); started != "" && w.Action == command.Delete {
		if path, _ := lookUp([]string{started}, self); path != "" {
			return path, nil
		}
	}
	if cfg.Shim != "" {
		if path, _ := lookUp([]string{cfg.Shim}, self); path != "" {
			return path, nil
		}
	} else if wrapped.Inner == "" {
		return "", errors.New("which shim to wrap is said by the program's name, containerd-shim-<inner>-traced-v2: use a link with such a name (shimtrace install makes them)")
	}
	places := knownPlaces("/", wrapped.Inner)
	path, ourselves := lookUp(innerFiles(wrapped), self, places...)
	switch {
	case path != "" && cfg.Shim != "" && w.Action == command.Start:
		log.Error("the shim that the configuration names is not there, or is shimtrace itself: another one is run", "configured", cfg.Shim, "section", "runtime."+wrapped.Inner, "run", path)
		return path, nil
	case path != "":
		return path, nil
	case ourselves != "":
		return "", fmt.Errorf("the shim to wrap, %s, is shimtrace itself: set shim in section [runtime.%s] of the configuration to the real one", ourselves, wrapped.Inner)
	}
	return "", fmt.Errorf("the shim to wrap, %s, is neither on PATH (%s) nor in %s, %s: install it or set shim in section [runtime.%s] of the configuration",
		cmp.Or(cfg.Shim, strings.Join(wrapped.Files(), " or ")), os.Getenv("PATH"), filepath.Dir(self), strings.Join(places, ", "), wrapped.Inner)
}

// innerFiles returns what the inner shim's file may be called. All of Kata's runtime
// classes share one file, which kata-deploy names by its path.
func innerFiles(wrapped shimname.Name) []string {
	files := wrapped.Files()
	if strings.HasPrefix(wrapped.Inner, "kata-") {
		files = append(files, "containerd-shim-kata-v2")
	}
	return files
}

// knownPlaces returns the directories where an inner shim of this name may be installed,
// although containerd's PATH may not have them.
func knownPlaces(root, inner string) []string {
	var places []string
	if strings.HasPrefix(inner, "kata") {
		places = kataPlaces(root, inner)
	}
	for _, dir := range []string{"usr/local/bin", "usr/local/sbin", "usr/bin", "usr/sbin", "opt/containerd/bin", "run/current-system/sw/bin", "var/lib/rancher/k3s/data/current/bin"} {
		places = append(places, filepath.Join(root, dir))
	}
	return places
}

// kataPlaces are those of kata-deploy (3.x and 4.x), the likeliest first: an
// installation in /opt/kata-<suffix> is for the classes of that suffix, and the
// runtime in Rust has a directory of its own, for the classes that kata-deploy's
// get_kata_containers_runtime_path names.
func kataPlaces(root, inner string) []string {
	rust := slices.ContainsFunc([]string{"runtime-rs", "dragonball", "cloud-hypervisor"}, func(s string) bool { return strings.Contains(inner, s) })
	dirs, _ := filepath.Glob(filepath.Join(root, "opt/kata-*"))
	dirs = slices.DeleteFunc(dirs, func(dir string) bool {
		return !strings.HasSuffix(inner, strings.TrimPrefix(filepath.Base(dir), "kata"))
	})
	var places []string
	for _, dir := range append(dirs, filepath.Join(root, "opt/kata"), filepath.Join(root, "opt/confidential-containers")) {
		own, other := filepath.Join(dir, "bin"), filepath.Join(dir, "runtime-rs/bin")
		if rust {
			own, other = other, own
		}
		places = append(places, own, other)
	}
	return append(places, filepath.Join(root, "snap/kata-containers/current/usr/bin"))
}

// lookUp returns the first of the programs that is there, on PATH, in our own
// directory or in one of the others, and is not ourselves. If only we are, it returns
// where.
func lookUp(names []string, self string, others ...string) (path, ourselves string) {
	dirs := append(append(filepath.SplitList(os.Getenv("PATH")), filepath.Dir(self)), others...)
	for _, name := range names {
		candidates := []string{name}
		if !strings.Contains(name, "/") {
			candidates = nil
			for _, dir := range dirs {
				candidates = append(candidates, filepath.Join(dir, name))
			}
		}
		for _, c := range candidates {
			if _, err := exec.LookPath(c); err != nil || !strings.Contains(c, "/") {
				continue
			}
			if !sameFile(c, self) {
				return c, ""
			}
			ourselves = c
		}
	}
	return "", ourselves
}

func sameFile(a, b string) bool {
	sa, errA := os.Stat(a)
	sb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(sa, sb)
}

// runInner runs the inner shim's command with our arguments, environment, standard input
// and standard error, in a process group of its own as containerd would start it, and
// returns what it wrote to its standard output. It dies with us: containerd ends a command
// that takes too long by killing the one process it knows. meanwhile is called once it
// has started, or could not be.
func (w wrapper) runInner(meanwhile func()) ([]byte, error) {
	from, to, err := os.Pipe()
	if err != nil {
		meanwhile()
		return nil, fmt.Errorf("run %s: %w", w.Inner, err)
	}
	defer from.Close()
	attr := &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{uintptr(syscall.Stdin), to.Fd(), uintptr(syscall.Stderr)},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		// The command takes the end of this thread for ours: it stays until then. Other
		// goroutines are not bound to one, which would make each switch between them slow.
		runtime.LockOSThread()
		inner, err := host.StartChild(w.Inner, append([]string{w.Inner}, w.Args...), attr)
		to.Close()
		close(started)
		if err == nil {
			err = inner.Wait()
		}
		ended <- err
		select {}
	}()
	<-started
	meanwhile()
	out, readErr := io.ReadAll(from)
	return out, cmp.Or(<-ended, readErr)
}

// exitCode returns the exit status to pass on for the error of a command that
// was run: its own, or 1 when it has none.
func exitCode(err error) int {
	var exit host.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitStatus() > 0:
		return exit.ExitStatus()
	}
	return 1
}
