package toolset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Build makes every tool of the list that root lacks and says on log what it
// builds and how long each took. Any number of processes may call it at once:
// one builds, the others wait and find the work done. It goes on after a
// failure and returns all of them.
func Build(ctx context.Context, root string, tools []Tool, log io.Writer) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("make the tools directory: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(root, ".lock"), log)
	if err != nil {
		return err
	}
	defer unlock()

	var failed []error
	for _, t := range tools {
		if t.Built(root) {
			continue
		}
		if err := t.missing(); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintf(log, "building %s from %s\n", t, t.Source())
		start := time.Now()
		if err := t.build(ctx, root); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintf(log, "built %s in %s\n", t, time.Since(start).Round(time.Second))
	}
	return errors.Join(failed...)
}

// build works in a directory beside the final one and renames at the end, so
// that an interrupted build leaves nothing that looks complete.
func (t Tool) build(ctx context.Context, root string) error {
	work, err := os.MkdirTemp(root, ".build-")
	if err != nil {
		return fmt.Errorf("build %s: %w", t, err)
	}
	defer os.RemoveAll(work)
	bin := filepath.Join(work, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return fmt.Errorf("build %s: %w", t, err)
	}

	if t.Debian != nil || t.Maven != "" || t.Components != nil {
		get := t.unpack
		if t.Maven != "" {
			get = t.getArtifact
		} else if t.Components != nil {
			get = t.makeCollector
		}
		if err := get(ctx, work, bin); err != nil {
			return fmt.Errorf("build %s: %w", t, err)
		}
		return os.Rename(bin, t.Dir(root))
	}
	src, prefix := filepath.Join(work, "src"), t.Module
	if t.InPlace {
		prefix = "."
		err = t.copySource(ctx, src)
	} else {
		err = t.requireModule(src)
	}
	if err != nil {
		return fmt.Errorf("build %s: %w", t, err)
	}

	out := bin + "/"
	if t.Main != nil {
		out += t.Name
	}
	args := []string{"build", "-mod=mod", "-buildvcs=false", "-ldflags=-s -w", "-tags=" + t.Tags, "-o", out}
	for _, p := range t.Packages {
		if p != "" {
			p = "/" + p
		}
		args = append(args, prefix+p)
	}
	if t.Main != nil {
		if err := os.WriteFile(filepath.Join(src, "main.go"), t.Main, 0o644); err != nil {
			return fmt.Errorf("build %s: %w", t, err)
		}
		args = append(args, "main.go") // named, it is built whatever its constraints say
	}
	if _, err := goCommand(ctx, src, args...); err != nil {
		return fmt.Errorf("build %s: %w", t, err)
	}
	if err := os.Rename(bin, t.Dir(root)); err != nil {
		return fmt.Errorf("build %s: %w", t, err)
	}
	return nil
}

// Source says where t comes from.
func (t Tool) Source() string {
	if t.Debian != nil {
		return "Debian's packages " + strings.Join(t.Debian, ", ")
	}
	if t.Maven != "" {
		return t.Maven + " of Maven Central"
	}
	return t.Module
}

// requireModule writes a module whose only content is the requirement of t at
// its exact version, which makes the set of dependencies the same everywhere.
func (t Tool) requireModule(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	mod := fmt.Sprintf("module tools\n\ngo 1.26.0\n\nrequire %s %s\n", t.Module, t.Version)
	return os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o644)
}

// copySource downloads the module and copies it to where it can be written:
// the module cache is read-only, and os.CopyFS does not keep that.
func (t Tool) copySource(ctx context.Context, dir string) error {
	out, err := goCommand(ctx, "/", "mod", "download", "-json", t.Module+"@"+t.Version)
	if err != nil {
		return err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return fmt.Errorf("read the answer of go mod download: %w", err)
	}
	return os.CopyFS(dir, os.DirFS(module.Dir))
}

// goCommand runs the go command in dir, independent of any workspace that the
// caller is in, and returns its standard output.
func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "PWD="+dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// lock takes the file lock at path and returns what releases it. The kernel
// releases it too when the process dies.
func lock(ctx context.Context, path string, log io.Writer) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the tools directory: %w", err)
	}
	for waited := false; ; waited = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !waited {
			fmt.Fprintf(log, "waiting for another build in %s\n", filepath.Dir(path))
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
