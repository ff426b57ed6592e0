package forward

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// sockets listen for agents' connections.
type sockets struct {
	o      *Options
	report *console.Console
	fixed  []fixedSocket
	finder *sandboxFinder
}

// fixedSocket is the socket of one VM.
type fixedSocket struct {
	sandbox string
	pattern listen.Pattern
}

func newSockets(o *Options, report *console.Console) *sockets {
	s := &sockets{o: o, report: report}
	var all []listen.Pattern
	for _, p := range o.sockets {
		if strings.Contains(p.Path, sandboxPlaceholder) {
			all = append(all, p)
		} else {
			s.fixed = append(s.fixed, ownSandbox(p.Path))
		}
	}
	s.finder = newSandboxFinder(all)
	return s
}

// serve implements source.
func (s *sockets) serve(ctx context.Context, handle listen.Handler) error {
	s.report.Info("listening for agents at %s", s)
	ctx, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	for _, f := range s.fixed {
		if err := s.hybrid(ctx, &running, f.sandbox, []listen.Pattern{f.pattern}, handle); err != nil {
			return err
		}
	}
	if !s.finder.empty() {
		running.Go(func() { s.watch(ctx, handle) })
	}
	if !s.o.vsock {
		<-ctx.Done()
		return nil
	}
	listen.AcceptVSOCK(ctx, s.report.Warn, handle)
	return nil
}

// hybrid listens for the agent of one sandbox until ctx is done.
func (s *sockets) hybrid(ctx context.Context, running *sync.WaitGroup, sandbox string, at []listen.Pattern, handle listen.Handler) error {
	h, err := listen.NewHybrid(sandbox, listen.HybridOptions{
		Patterns: at,
		Users:    s.o.Config.Agent.Users,
		Pace:     vmmdir.NewPace(30 * time.Second),
		Warn:     s.report.Warn,
	}, handle)
	if err != nil {
		return err
	}
	running.Go(func() { h.Serve(ctx) })
	return nil
}

const (
	// lookForSandboxes is the pause between searches for sandboxes. A VM's directory
	// exists some seconds before its agent connects.
	lookForSandboxes = 500 * time.Millisecond
	// maxSandboxes bounds the sandboxes listened for at a time.
	maxSandboxes = 1024
)

// watch listens for the agents of all existing sandboxes.
func (s *sockets) watch(ctx context.Context, handle listen.Handler) {
	var running sync.WaitGroup
	defer running.Wait()
	serving := make(map[string]servedSandbox)
	tick := time.NewTicker(lookForSandboxes)
	defer tick.Stop()
	for ctx.Err() == nil {
		found := s.finder.find()
		for id, now := range serving {
			if found[id] != now.mark {
				now.end()
				delete(serving, id)
			}
		}
		for id, mark := range found {
			if _, known := serving[id]; known {
				continue
			}
			if len(serving) >= maxSandboxes {
				s.report.Warn(fmt.Errorf("more than %d sandboxes: the agents of the others are not listened for", maxSandboxes))
				break
			}
			one, end := context.WithCancel(ctx)
			if err := s.hybrid(one, &running, id, s.finder.patterns, handle); err != nil {
				s.report.Warn(err)
			}
			serving[id] = servedSandbox{mark, end}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	for _, now := range serving {
		now.end()
	}
}

// servedSandbox is a sandbox that is listened for.
type servedSandbox struct {
	mark uint64 // see sandboxFinder.find
	end  context.CancelFunc
}

// String lists the addresses.
func (s *sockets) String() string {
	var all []string
	if s.o.vsock {
		all = append(all, fmt.Sprintf("VSOCK port %d", listen.Port))
	}
	for _, p := range s.o.sockets {
		all = append(all, fmt.Sprintf("%s_%d", p.Path, listen.Port))
	}
	return strings.Join(all, ", ")
}
