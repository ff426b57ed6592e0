package host

import (
	"context"
	"os/exec"
	"time"
)

// Version returns what a program prints when it is called with --version, empty if it
// fails or takes more than some seconds.
func Version(program string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return string(out)
}
