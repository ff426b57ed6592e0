package kata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/shim/server"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

const (
	// runtimeDrain bounds how long the relay waits at its end for what the runtime
	// has posted.
	runtimeDrain = 3 * time.Second
	// servingTime bounds the search for the inner shim's process.
	servingTime = time.Minute
	// watchTime is how long the endpoint is watched for a runtime that has not sent a span.
	// The Go runtime waits for the endpoint with each span, without a limit.
	watchTime = 2 * time.Minute
)

// runtimeSpans sees to it that the host has an endpoint for the spans of Kata's
// runtimes, and gets those of the sandbox's own from it.
type runtimeSpans struct {
	dir    string
	keeper *export.Keeper
	log    *slog.Logger

	link    *route.Link // nil before serve
	sends   atomic.Bool // the runtime has sent a span
	stop    context.CancelFunc
	running sync.WaitGroup
}

// openRuntimes has the endpoint opened, if it is wanted and nobody has: before the
// inner shim serves, whose first spans would be refused otherwise. Nothing of it can
// keep the relay from its work: what fails is logged.
func (o *Observer) openRuntimes() *runtimeSpans {
	if !o.wants(o.Config.Jaeger.Receive) {
		return nil
	}
	at := o.Config.Jaeger.Listen
	s := &runtimeSpans{dir: export.CollectDir(o.Config), keeper: o.Telemetry.Keeper, log: o.Log}
	s.keeper.Receive(func() ([]*os.File, error) { return s.listen(at) },
		func(answer string) bool { return !slices.Contains(strings.Fields(answer), at) },
		func(string) func() {
			return route.Ending(s.dir, []string{at}, func(err error) { o.Log.Warn("runtime's spans", "error", err) })
		})
	state.Within(state.CloseTime, s.keeper.Ensure)
	return s
}

// listen opens the endpoint's port, so that from then on posts wait for the process
// instead of being refused.
func (s *runtimeSpans) listen(at string) ([]*os.File, error) {
	l, err := route.Open(at)
	if taken, ok := errors.AsType[*route.TakenError](err); ok {
		s.sayTaken(taken)
		return nil, fmt.Errorf("%w; if the port is to stay somebody else's, set receive in [jaeger] of the configuration to \"off\", and turn the runtimes' tracing off", err)
	}
	if err != nil {
		return nil, err
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", at, err)
	}
	return []*os.File{f}, nil
}

// takenInterval is the pause between two log lines which say that another user has the
// port, for all relays of the host together.
const takenInterval = time.Minute

// sayTaken says loudly, and again and again, that what runtimes trace goes to another
// user: containers' environments may be in it.
func (s *runtimeSpans) sayTaken(taken *route.TakenError) {
	if !taken.By.Foreign() || !due(filepath.Join(s.dir, "taken"), takenInterval) {
		return
	}
	s.log.Error("another user gets the spans of Kata's runtimes, and what is secret in them", "address", taken.At, "holder", taken.By.String(),
		"remedy", "end that process, or turn tracing off in Kata's configuration: shimtrace install --uninstall --kata")
}

// due reports whether the interval has passed since due last reported true for the path, in
// any process; if so, the interval begins anew.
func due(path string, interval time.Duration) bool {
	if st, err := os.Lstat(path); err == nil {
		if since := time.Since(st.ModTime()); since >= 0 && since < interval {
			return false
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return true // rather twice than never
	}
	defer f.Close()
	now := time.Now()
	_ = os.Chtimes(path, now, now)
	return true
}

// serve takes the runtime's spans to those of the agent.
func (s *runtimeSpans) serve(o *Observer) {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.link = route.NewLink(route.LinkOptions{
		Dir:     s.dir,
		Sandbox: o.Who.Sandbox,
		Ensure:  s.keeper.Ensure,
		Losses:  o.Telemetry.Journal.Losses(losses.Runtimes),
		Warn:    func(err error) { o.Log.Warn("runtime's spans", "error", err) },
	}, func(span *span.Span) {
		s.sends.Store(true)
		o.own.AddRuntime(span)
	})
	s.running.Go(func() { s.link.Serve(ctx) })
	s.running.Go(func() { s.watch(ctx) })
	s.running.Go(func() { s.tellProcess(ctx, o) })
}

// watch has the endpoint replaced when it does not answer, for as long as the runtime
// may have a span for it.
func (s *runtimeSpans) watch(ctx context.Context) {
	first, cancel := context.WithTimeout(ctx, watchTime)
	defer cancel()
	s.keeper.Watch(first)
	if s.sends.Load() {
		s.keeper.Watch(ctx)
	}
}

// tellProcess tells the endpoint which process the runtime is.
func (s *runtimeSpans) tellProcess(ctx context.Context, o *Observer) {
	ctx, cancel := context.WithTimeout(ctx, servingTime)
	defer cancel()
	p := server.Await(ctx, o.Who.Inner, o.Container, o.state.InnerSock, o.state.InnerPID)
	if p.PID == 0 {
		s.log.Debug("the inner shim's process was not found")
		return
	}
	s.link.Processes(p)
}

// close takes what the runtime has posted until its end, and then stops.
func (s *runtimeSpans) close() {
	if s.link != nil {
		ctx, cancel := context.WithTimeout(context.Background(), runtimeDrain)
		defer cancel()
		s.link.Leave(ctx)
		s.stop()
		s.running.Wait()
	}
}
