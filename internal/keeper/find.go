package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// tool is the operator's tool.
const tool = "shimtrace"

// Find returns the tool: beside our own binary (not the link by which we were
// started), or on PATH. A program that is configured, under key, takes its place.
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
