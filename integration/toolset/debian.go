package toolset

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// UnpackDebian downloads a Debian package into the directory work and unpacks it
// there, installing nothing. It returns the name of the directory below work that
// has the package's files, which is that of the package with its version.
func UnpackDebian(ctx context.Context, work, pkg string) (string, error) {
	if _, err := Output(ctx, work, "apt-get", "download", "-q", pkg); err != nil {
		// The lists of packages are absent or out of date.
		if _, err := Output(ctx, work, "apt-get", "update", "-q"); err != nil {
			return "", err
		}
		if _, err := Output(ctx, work, "apt-get", "download", "-q", pkg); err != nil {
			return "", err
		}
	}
	debs, _ := filepath.Glob(filepath.Join(work, pkg+"_*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages", pkg, len(debs))
	}
	name := strings.TrimSuffix(filepath.Base(debs[0]), ".deb")
	_, err := Output(ctx, work, "dpkg", "-x", debs[0], name)
	return name, err
}

// unpack puts the programs of t's packages into bin.
func (t Tool) unpack(ctx context.Context, work, bin string) error {
	for _, pkg := range t.Debian {
		name, err := UnpackDebian(ctx, work, pkg)
		if err != nil {
			return err
		}
		for _, dir := range []string{"usr/bin", "usr/sbin", "bin"} {
			programs, _ := filepath.Glob(filepath.Join(work, name, dir, "*"))
			for _, p := range programs {
				if err := os.Rename(p, filepath.Join(bin, filepath.Base(p))); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Output runs a program in dir and returns what it prints; its error has what it
// complains of.
func Output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(append([]string{program}, args...), " "), err, stderr.String())
	}
	return string(out), nil
}

// Libraries returns the paths of the shared libraries that a program needs, its loader
// included; none if it is static.
func Libraries(ctx context.Context, program string) (paths []string, err error) {
	out, err := Output(ctx, "/", "ldd", program)
	if err != nil {
		return nil, fmt.Errorf("list the libraries of %s: %w", program, err)
	}
	for word := range strings.FieldsSeq(out) {
		if strings.HasPrefix(word, "/") {
			paths = append(paths, word)
		}
	}
	return paths, nil
}
