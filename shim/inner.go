package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// findInner returns the path of the shim to wrap: what the configuration says for
// this runtime, else the file of that name on PATH or beside ourselves.
func findInner(cfg config.Config, wrapped shimname.Name) (string, error) {
	names := []string{cfg.Shim}
	if cfg.Shim == "" {
		if wrapped.Inner == "" {
			return "", errors.New("which shim to wrap is said by the program's name, containerd-shim-<inner>-traced-v2: use a link with such a name (shimtrace install makes them)")
		}
		names = wrapped.Files()
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own executable: %w", err)
	}
	path, ourselves := lookUp(names, self)
	switch {
	case path != "":
		return path, nil
	case ourselves != "":
		return "", fmt.Errorf("the shim to wrap, %s, is shimtrace itself: set shim in section [runtime.%s] of the configuration to the real one", ourselves, wrapped.Inner)
	}
	return "", fmt.Errorf("the shim to wrap, %s, is neither on PATH (%s) nor in %s: install it or set shim in section [runtime.%s] of the configuration", strings.Join(names, " or "), os.Getenv("PATH"), filepath.Dir(self), wrapped.Inner)
}

// lookUp returns the first of the programs that is there, on PATH or in our own
// directory, and is not ourselves. If only we are, it returns where.
func lookUp(names []string, self string) (path, ourselves string) {
	dirs := append(filepath.SplitList(os.Getenv("PATH")), filepath.Dir(self))
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

// become turns this process into the inner shim: same arguments, environment,
// descriptors and process id. It returns only on error.
func become(inner string, c command) error {
	err := syscall.Exec(inner, append([]string{inner}, c.args...), os.Environ())
	return fmt.Errorf("execute %s: %w", inner, err)
}

// innerCommand returns the inner shim's command with our arguments, environment,
// standard input and standard error, in a process group of its own as containerd
// would start it. It dies with us: containerd ends a command that takes too long
// by killing the one process it knows. The caller must have locked its goroutine
// to its thread, whose end would otherwise count as ours.
func innerCommand(inner string, c command) *exec.Cmd {
	cmd := exec.Command(inner, c.args...)
	cmd.Stdin = os.Stdin
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// exitCode returns the exit status to pass on for the error of a command that
// was run: its own, or 1 when it has none.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	}
	return 1
}
