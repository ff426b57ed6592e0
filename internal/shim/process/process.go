// Package process is the program whose processes go on after containerd's command has ended:
// the relay of a sandbox, the host's guard, and a process that records what a command would
// have in the trace. Package shim starts the first and the last, relays start the guard, and
// the guard starts relays that go on for others. What they print goes nowhere.
//
// What a relay does is in package relay, what the guard does in package guard; this package
// has how they begin. Its only caller is cmd/shimtrace-relay.
package process

import (
	"fmt"
	stdlog "log"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/relay"
)

// process is one of this program's.
type process struct{ command.Line }

// Run is the program: it does what argv says, as the shim that argv[0] names, and returns
// the exit status.
func Run(argv []string) int {
	p := process{command.Parse(argv)}
	if p.Action == command.Guard {
		return p.guard()
	}
	source := config.NewSource(p.Wrapped().Inner, os.Getenv)
	cfg, report := config.Load(p.Wrapped().Inner, os.Getenv) // start has told what is wrong with it
	level := command.Level(cfg.Log.Level)
	log := command.OpenLog(p.Bundle, level, "id", p.ID, "command", p.Action)
	o := relay.Options{Config: cfg, Source: source, Report: report, Level: level, Log: log}
	switch {
	case p.Action == command.Relay && p.Resume:
		return p.resume(o)
	case p.Action == command.Relay:
		return p.relay(o)
	case p.Action == command.Record:
		return p.record(cfg, !report.Unreadable, log)
	}
	fmt.Fprintln(os.Stderr, "this program is run by containerd's shims that shimtrace wraps, not by hand")
	return 2
}

// becomeIndependent has this process live by itself.
func (p process) becomeIndependent() {
	// Signals are for the inner shim to act upon: its end is ours.
	signal.Ignore(unix.SIGPIPE, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	command.RedirectStderr(p.Bundle)
	stdlog.SetOutput(os.Stderr) // which is a log from here on
}
