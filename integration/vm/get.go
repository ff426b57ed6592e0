package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/integration/toolset"
)

// Get puts into the cache those parts that it lacks and that are not installed
// as packages, and says on log what it gets and how long that took: 30 MB of
// kernel, and a build of less than a minute. A kernel that is there is kept,
// though there be a newer one: remove its directory to renew it.
func Get(ctx context.Context, log io.Writer) error {
	root, err := toolset.Root()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("make the tools directory: %w", err)
	}
	return errors.Join(getKernel(ctx, root, log), getVsock(ctx, root, log))
}

func getKernel(ctx context.Context, root string, log io.Writer) error {
	if kernel, _ := findKernel(root); kernel != "" {
		return nil
	}
	if err := needPrograms("a guest's kernel", "apt-get", "dpkg"); err != nil {
		return err
	}
	return assemble(root, "a guest's kernel", log, func(work string) (string, error) {
		pkg, err := kernelPackage(ctx)
		if err != nil { // the lists of packages are absent
			if _, err := toolset.Output(ctx, work, "apt-get", "update", "-q"); err != nil {
				return "", err
			}
			if pkg, err = kernelPackage(ctx); err != nil {
				return "", err
			}
		}
		return toolset.UnpackDebian(ctx, work, pkg)
	})
}

// kernelPackage is the package that the name without a version stands for.
func kernelPackage(ctx context.Context) (string, error) {
	out, err := toolset.Output(ctx, "/", "apt-cache", "depends", "--important", kernelMeta)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if pkg, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			return pkg, nil
		}
	}
	return "", fmt.Errorf("apt-cache knows no package that %s depends on", kernelMeta)
}

func getVsock(ctx context.Context, root string, log io.Writer) error {
	if _, err := os.Stat(filepath.Join(root, vsockDir)); err == nil {
		return nil
	}
	if err := needPrograms(vsockDir, "cargo", "cc"); err != nil {
		return fmt.Errorf("%w (a Rust toolchain, and the package gcc)", err)
	}
	return assemble(root, vsockDir, log, func(work string) (string, error) {
		source := filepath.Join(work, "source")
		if err := vsockSource(ctx, source); err != nil {
			return "", err
		}
		_, err := toolset.Output(ctx, work, "cargo", "install", "--quiet", "--locked", "--path", source,
			"--root", filepath.Join(work, vsockDir), "--target-dir", filepath.Join(work, "target"))
		return vsockDir, err
	})
}

// assemble lets make work in a directory beside the final one and renames what
// it names, so that an interrupted run leaves nothing that looks complete. Of
// two that make the same at once, the first wins.
func assemble(root, what string, log io.Writer, make func(work string) (name string, err error)) error {
	work, err := os.MkdirTemp(root, ".build-")
	if err != nil {
		return fmt.Errorf("get %s: %w", what, err)
	}
	defer os.RemoveAll(work)
	fmt.Fprintf(log, "getting %s\n", what)
	start := time.Now()
	name, err := make(work)
	if err != nil {
		return fmt.Errorf("get %s: %w", what, err)
	}
	if err := os.Rename(filepath.Join(work, name), filepath.Join(root, name)); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("get %s: %w", what, err)
	}
	fmt.Fprintf(log, "got %s in %s\n", name, time.Since(start).Round(time.Second))
	return nil
}
