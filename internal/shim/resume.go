package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/shim/relay"
)

// becomeProcess has this process live by itself, as relays do.
func (c command) becomeProcess() {
	// Signals are for the inner shim to act upon: its end is ours.
	signal.Ignore(unix.SIGPIPE, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	redirectStderr(c.bundle)
	stdlog.SetOutput(os.Stderr) // which is a log from here on
}

// resumeRelay is the life of a relay that the guard has started to go on for another one.
func (c command) resumeRelay(cfg config.Config, log *slog.Logger) int {
	c.becomeProcess()
	s, err := guard.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "relay is resumed by the guard, not by hand:", err)
		return 2
	}
	err = relay.Takes(s.Who.Formats)
	if rerr := s.Ready(err); err != nil || rerr != nil {
		log.Error("this relay cannot go on for another one", "error", errors.Join(err, rerr))
		return 1
	}
	got, err := s.Await(context.Background())
	if errors.Is(err, io.EOF) {
		return 0 // not needed after all
	}
	if err != nil {
		log.Error("this relay cannot go on for another one", "error", err)
		return 1
	}
	o := relay.Options{Config: cfg, Log: log, Guard: c.guarded(cfg, log)}
	o.Guard.Who.Sandbox, o.Guard.Who.Pod = s.Who.Sandbox, s.Who.Pod
	p, err := relay.Resume(o, got)
	if err != nil {
		log.Error("this relay cannot go on for another one", "error", err)
		return 1
	}
	p.Run()
	return 0
}

// guarded says where the guard of this process is, and how another one is started that
// goes on for it.
func (c command) guarded(cfg config.Config, log *slog.Logger) guard.ClientOptions {
	program, err := os.Executable()
	if err != nil {
		log.Warn("this sandbox ends if its relay dies", "error", err)
		return guard.ClientOptions{}
	}
	keeper := keepGuard(cfg.Relay.StateDir, log)
	return guard.ClientOptions{
		Dir:    cfg.Relay.StateDir,
		Ensure: keeper.Ensure,
		Every:  guardEvery,
		Who: guard.Registration{
			Program: program,
			Args:    c.relayArgs(flagResume, actionRelay),
			Env:     os.Environ(),
			Build:   buildVersion(),
		},
	}
}

// relayArgs is the command line of a relay process. The name and arguments are for those
// who read a process list.
func (c command) relayArgs(rest ...string) []string {
	return append([]string{c.program, "-namespace", c.namespace, "-id", c.id, "-bundle", c.bundle}, rest...)
}
