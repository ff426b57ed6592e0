package shim

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// Run is the program: it does what argv says as the shim that argv[0] names, and
// returns the exit status. It must be called on the main goroutine.
func Run(argv []string) int {
	// The inner shim's commands die with the thread that started them: this one
	// lives as long as the process.
	runtime.LockOSThread()
	c := parseCommand(argv)
	name := wrapped(c.program)
	cfg, cfgErr := config.Load(name.Inner, os.Getenv)
	inner, err := findInner(cfg, name)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.program, err)
		return 1
	}
	if c.action == "" {
		// -info, -v, and what shims of a later day may be asked.
		return c.pass(inner, slog.New(slog.DiscardHandler))
	}
	log := openLog(c.bundle, cfg.Log.Level, "id", c.id, "command", c.action)
	if cfgErr != nil {
		log.Error("not traced: the configuration has an error", "error", cfgErr)
		return c.pass(inner, log)
	}
	if cfg.Trace.Mode == "off" && c.action == actionStart {
		return c.pass(inner, log)
	}
	switch c.action {
	case actionStart:
		return c.start(cfg, inner, log)
	case actionDelete:
		return c.delete(cfg, inner, log)
	default:
		return c.relay(cfg, inner, log)
	}
}

// wrapped returns the shim that the program's name means: that of a link of ours, or
// a real shim's own name, in whose place we are on containerd's PATH.
func wrapped(program string) shimname.Name {
	name, ok := shimname.ParseLink(program)
	if !ok {
		name, _ = shimname.Parse(program)
	}
	return name
}

// pass becomes the inner shim.
func (c command) pass(inner string, log *slog.Logger) int {
	err := become(inner, c)
	log.Error("not run", "error", err)
	fmt.Fprintln(os.Stderr, err)
	return 1
}
