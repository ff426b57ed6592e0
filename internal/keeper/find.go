package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const tool = "shimtrace"

// Find returns the path of the operator's tool: beside our own binary, symbolic links
// resolved, or on PATH. A configured program, named under key, takes its place.
func Find(configured, key string) (string, error) {
	if configured != "" {
		p, err := exec.LookPath(configured)
		if err != nil {
			return "", fmt.Errorf("%s: %w", key, err)
		}
		return p, nil
	}
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			if p, err := exec.LookPath(filepath.Join(filepath.Dir(self), tool)); err == nil {
				return p, nil
			}
		}
	}
	p, err := exec.LookPath(tool)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside the shim nor on PATH: install it, or name it in %s", tool, key)
	}
	return p, nil
}
