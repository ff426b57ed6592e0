package shim

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
	_ "github.com/shimtrace/shimtrace/internal/quiet" // standard error is part of start's answer
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// Run is the program: it does what argv says as the shim that argv[0] names, and
// returns the exit status. It must be called on the main goroutine.
func Run(argv []string) int {
	// The inner shim's commands die with the thread that started them: this one
	// lives as long as the process.
	runtime.LockOSThread()
	c := parseCommand(argv)
	if c.action == actionGuard {
		return c.guard()
	}
	name := wrapped(c.program)
	cfg, report := config.Load(name.Inner, os.Getenv)
	log := slog.New(slog.DiscardHandler)
	if c.action != "" {
		log = openLog(c.bundle, cfg.Log.Level, "id", c.id, "command", c.action)
	}
	if c.action == actionRelay && c.resume {
		return c.resumeRelay(cfg, log) // whatever has become of the inner shim's file
	}
	inner, err := c.findInner(cfg, name, log)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.program, err)
		return 1
	}
	switch c.action {
	case actionStart:
		tell(report, log)
		if cfg.Trace.Mode == "off" {
			if err := state.LeaveInner(c.bundle, cfg, inner); err != nil {
				log.Debug("which shim was started is not in the bundle", "error", err)
			}
			return c.pass(inner, log)
		}
		return c.start(cfg, inner, log)
	case actionDelete:
		return c.delete(cfg, inner, !report.Unreadable, log)
	case "":
		// -info, -v, and what shims of a later day may be asked.
		return c.pass(inner, log)
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

// tell logs what there is to say of the configuration: start does, once for each
// container.
func tell(r config.Report, log *slog.Logger) {
	if err := r.Err(); err != nil {
		log.Error("the configuration has mistakes", "error", oneLine(err))
	}
	if err := errors.Join(r.Ignored...); err != nil {
		log.Warn("environment variables are not understood", "error", oneLine(err))
	}
	if len(r.Overrides) > 0 {
		log.Info("the environment overrides the configuration", "keys", strings.Join(r.Overrides, "; "))
	}
}

// oneLine returns the text of joined errors.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// pass becomes the inner shim.
func (c command) pass(inner string, log *slog.Logger) int {
	err := become(inner, c)
	log.Error("not run", "error", err)
	fmt.Fprintln(os.Stderr, err)
	return 1
}
