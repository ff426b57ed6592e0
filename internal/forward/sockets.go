package forward

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/sleep"
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
		if _, err := s.hybrid(ctx, &running, f.sandbox, []listen.Pattern{f.pattern}, nil, handle); err != nil {
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

// hybrid listens for the agent of one sandbox until ctx is done, and closes ended then. It
// begins when before is closed, unless that is nil.
func (s *sockets) hybrid(ctx context.Context, running *sync.WaitGroup, sandbox string, at []listen.Pattern, before <-chan struct{}, handle listen.Handler) (ended <-chan struct{}, err error) {
	h, err := listen.NewHybrid(sandbox, listen.HybridOptions{
		Patterns: at,
		Users:    s.o.Config.Agent.Users,
		Pace:     vmmdir.NewPace(30 * time.Second),
		Warn:     s.report.Warn,
	}, handle)
	if err != nil {
		return nil, err
	}
	over := make(chan struct{})
	running.Go(func() {
		defer close(over)
		if before != nil {
			<-before
		}
		h.Serve(ctx)
	})
	return over, nil
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
	// A sandbox that has vanished and come back is served when nobody serves it any more, who
	// would take the next one's place in the new directory.
	ending := make(map[string]<-chan struct{})
	for wait := time.Duration(0); sleep.For(ctx, wait); wait = lookForSandboxes {
		found := s.finder.find()
		for id, now := range serving {
			if found[id] != now.mark {
				now.end()
				ending[id] = now.ended
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
			ended, err := s.hybrid(one, &running, id, s.finder.patterns, ending[id], handle)
			s.report.Warn(err)
			serving[id] = servedSandbox{mark, end, ended}
			delete(ending, id)
		}
		maps.DeleteFunc(ending, func(_ string, ended <-chan struct{}) bool {
			select {
			case <-ended:
				return true
			default:
				return ended == nil // it could not be served
			}
		})
	}
	for _, now := range serving {
		now.end()
	}
}

// servedSandbox is a sandbox that is listened for.
type servedSandbox struct {
	mark  uint64 // see sandboxFinder.find
	end   context.CancelFunc
	ended <-chan struct{} // nil: it could not be served
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
