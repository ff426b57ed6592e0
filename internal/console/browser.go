package console

import (
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// browserTime is how long a browser that cannot show the file may take to say so.
const browserTime = 2 * time.Second

// Open shows a file in the person's browser: the program that BROWSER names, or the
// desktop's by xdg-open. The browser outlives this process. getenv reads the
// environment.
func Open(file string, getenv func(string) string) error {
	program := getenv("BROWSER")
	if program == "" {
		if getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "" {
			return fmt.Errorf("there is no browser here, since neither BROWSER nor DISPLAY is set: copy %s to where one is", file)
		}
		program = "xdg-open"
	}
	cmd := exec.Command(program, file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("open %s: %s: %w", file, program, err)
		}
	case <-time.After(browserTime):
	}
	return nil
}
