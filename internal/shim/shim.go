package shim

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"github.com/shimtrace/shimtrace/internal/config"
	_ "github.com/shimtrace/shimtrace/internal/quiet" // standard error is part of start's answer
	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/standby"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// wrapper is what containerd has called, in the place of the inner shim.
type wrapper struct{ command.Line }

// Run is the program: it does what argv says as the shim that argv[0] names, and
// returns the exit status.
func Run(argv []string) int {
	w := wrapper{command.Parse(argv)}
	switch w.Action {
	case command.Relay, command.Record, command.Guard:
		return w.becomeRelay()
	}
	cfg, report := config.Load(w.Wrapped().Inner, os.Getenv)
	log := slog.New(slog.DiscardHandler)
	if w.Action != "" {
		log = command.OpenLog(w.Bundle, command.Level(cfg.Log.Level), "id", w.ID, "command", w.Action)
	}
	var err error
	if w.Inner, err = w.findInner(cfg, log); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", w.Program, err)
		return 1
	}
	switch w.Action {
	case command.Start:
		tell(report, log)
		if cfg.Trace.Mode == "off" {
			if err := state.LeaveInner(w.Bundle, cfg, w.Inner); err != nil {
				log.Debug("which shim was started is not in the bundle", "error", err)
			}
			return w.pass(log)
		}
		return w.start(cfg, log)
	case command.Delete:
		return w.delete(cfg, !report.Unreadable, log)
	default:
		// -info, -v, and what shims of a later day may be asked.
		return w.pass(log)
	}
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
func (w wrapper) pass(log *slog.Logger) int {
	err := w.become(w.Inner, w.Inner)
	log.Error("not run", "error", err)
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// becomeRelay becomes the program that relays, for a guard of an older version: there one
// program did everything, and the guard starts that.
func (w wrapper) becomeRelay() int {
	program, err := standby.Program()
	if err == nil {
		err = w.become(program, w.Program) // by which it knows the inner shim
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// become turns this process into a program: same arguments, environment, descriptors and
// process id. It returns only on error.
func (w wrapper) become(program, argv0 string) error {
	err := syscall.Exec(program, append([]string{argv0}, w.Args...), os.Environ())
	return fmt.Errorf("execute %s: %w", program, err)
}
