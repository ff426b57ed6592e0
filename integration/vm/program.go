package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build compiles Go packages, named as the go command takes them in this
// directory of the tree, into dir, statically so that they run in a guest.
// dir must exist.
func Build(ctx context.Context, dir string, packages ...string) error {
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", dir + string(filepath.Separator)}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %v for guests: %w\n%s", packages, err, out)
	}
	return nil
}
