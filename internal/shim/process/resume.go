package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/relay"
)

// resume is the life of a relay that the guard has started to go on for another one.
func (p process) resume(o relay.Options) int {
	log := o.Log
	p.becomeIndependent()
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
	o.Guard = p.guarded(o.Config, log)
	o.Guard.Who.Sandbox, o.Guard.Who.Pod = s.Who.Sandbox, s.Who.Pod
	r, err := relay.Resume(o, got)
	if err != nil {
		log.Error("this relay cannot go on for another one", "error", err)
		return 1
	}
	r.Run()
	return 0
}

// guarded says where the guard of this process is, and how a successor of this process is
// started.
func (p process) guarded(cfg config.Config, log *slog.Logger) guard.ClientOptions {
	program, err := os.Executable()
	if err != nil {
		log.Warn("this sandbox ends if its relay dies", "error", err)
		return guard.ClientOptions{}
	}
	keeper := keepGuard(cfg.Relay.StateDir, log)
	return guard.ClientOptions{
		Dir:     cfg.Relay.StateDir,
		Ensure:  keeper.Ensure,
		Every:   guardEvery,
		Watched: keeper.Watched,
		Who: guard.Registration{
			Program: program,
			Args:    p.Of(command.FlagResume, command.Relay),
			Env:     os.Environ(),
			Build:   buildVersion(),
		},
	}
}
