package collect

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
)

const (
	// diskTime bounds the wait for the journal's disk.
	diskTime = time.Second
	// closeTime bounds the wait, at the end, for posts under way, and then for relays
	// to take their spans.
	closeTime = 2 * time.Second
)

// reception receives runtimes' spans, which it passes to relays, and other programs' spans.
type reception struct {
	exclusive *exclusive
	console   *console.Console
	journal   *journal.Journal // counts losses
	counters  endpoint.Counters
	endpoint  *endpoint.Endpoint
	router    *route.Router
	programs  *programs
	serving   sync.WaitGroup

	wanted bool // a relay or the starter of the process wants runtimes' spans

	mu     sync.Mutex
	over   bool
	listen string                  // the address that runtimes are told to post to
	ports  map[string]net.Listener // served ports, by address
}

func newReception(cfg config.Config, p *exclusive, c *console.Console) *reception {
	r := &reception{
		exclusive: p, console: c, listen: cfg.Jaeger.Listen,
		ports:   make(map[string]net.Listener),
		journal: journal.New(cfg.Journal.Dir, export.JournalOptions(cfg)),
	}
	lost := r.journal.Losses(losses.Runtimes)
	r.counters.Losses = losses.New(lost)
	r.router = route.NewRouter(route.RouterOptions{
		HeldBytes: int(cfg.Jaeger.HeldBytes),
		Settle:    func(ctx context.Context) { _ = r.endpoint.Flush(ctx) },
		Losses:    lost,
		Pending:   p.pending,
		Warn:      c.Warn,
	})
	r.endpoint = endpoint.New(r.router.Take, endpoint.Options{
		Span:     agentconfig.Limits(cfg.Agent).Wire.Options,
		MaxBody:  int(cfg.Jaeger.BodyBytes),
		Report:   func(_ losses.Reason, err error) { c.Warn(err) },
		Counters: &r.counters,
		Pending:  p.pending,
	})
	r.programs = newPrograms(cfg, r.router, endpoint.Options{
		Span: agentconfig.Limits(cfg.Agent).Wire.Options, Counters: &r.counters,
	}, r.journal.Losses(losses.Posted), c)
	c.Warn(p.uncounted)
	if p.lost > 0 {
		lost.Add(losses.EndpointGone, int(p.lost))
		c.Warn(fmt.Errorf("the process before this one was killed when it had %d spans, which are lost", p.lost))
	}
	if p.unread > 0 {
		lost.Add(losses.EndpointStopped, int(p.unread))
	}
	return r
}

// run receives until ctx is done.
func (r *reception) run(ctx context.Context) {
	if err := r.journal.Within(diskTime, r.journal.Check); err != nil {
		r.console.Warn(fmt.Errorf("losses of runtimes' spans are not counted: %w", err))
	} else {
		r.console.Warn(r.journal.Within(diskTime, r.journal.Flush)) // what the previous process lost
	}
	r.router.Serve(ctx, r.exclusive.relays)

	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	posts, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	r.console.Warn(r.endpoint.Close(posts)) // a post may take too long
	r.programs.close(posts)
	r.serving.Wait()
	relays, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	r.router.Close(relays)
	r.tell()
	r.console.Warn(r.journal.Within(diskTime, r.journal.Close))
}

// state returns the answer to a ping: the served addresses. It takes every lock that a
// post waits for, so that a hanging process does not answer.
func (r *reception) state() string {
	r.router.Snapshot()
	r.endpoint.Waiting()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for at := range r.ports {
		all = append(all, at)
	}
	return strings.Join(all, " ")
}

// change applies another configuration: where runtimes are told to post to, and what is kept of
// their spans.
func (r *reception) change(cfg config.Config) {
	kept := agentconfig.Limits(cfg.Agent).Wire.Options
	r.endpoint.SetSpan(kept)
	r.programs.setSpan(kept)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listen = cfg.Jaeger.Listen
}

// missing returns the address that runtimes are told to post to, empty if it is served.
func (r *reception) missing() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports[r.listen] != nil {
		return ""
	}
	return r.listen
}

// take serves the port that was left to this process.
func (r *reception) take(files []*os.File) {
	for _, f := range files {
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			continue
		}
		if port, ok := l.(*net.TCPListener); ok && port.Addr().String() == r.missing() {
			r.console.Warn(r.serve(port))
		} else {
			l.Close()
		}
	}
}

// follow opens the configured port, if it is wanted, beside those that are open. This
// process lives as long as there are relays, and pods that start from now on are told
// the new address.
func (r *reception) follow() error {
	at := r.missing()
	if at == "" || !r.wanted {
		return nil
	}
	port, err := route.Open(at)
	if err == nil {
		err = r.serve(port)
	}
	if err != nil {
		return fmt.Errorf("endpoint of the runtimes: %w", err)
	}
	return nil
}

// serve serves a port until the process ends or serving fails.
func (r *reception) serve(port *net.TCPListener) error {
	at := port.Addr().String()
	guarded, err := r.router.Admit(port)
	if err != nil {
		port.Close()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		guarded.Close()
		return nil
	}
	too := ""
	if len(r.ports) > 0 {
		too = ", too"
	}
	r.ports[at] = guarded
	r.console.Info("runtimes may post to http://%s%s%s", at, endpoint.Path, too)
	r.serving.Go(func() {
		err := r.endpoint.Serve(guarded)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.ports, at)
		r.console.Warn(err)
	})
	return nil
}

// tell writes the counts of losses into the journal.
func (r *reception) tell() {
	// If this fails, the journal keeps the counts for its next record.
	r.console.Warn(r.journal.Within(diskTime, r.journal.Flush))
}

func (r *reception) status() console.Status {
	s := r.router.Snapshot()
	refused := make(map[string]uint64) // posts, by reason
	for reason, n := range r.counters.Losses.Counts() {
		if text := reason.String(); strings.HasSuffix(text, "_post") {
			refused[text] += n
		} else {
			s.Lost[reason] += n
		}
	}
	if n := r.counters.TurnedAway.Load(); n > 0 {
		refused["connections"] += n
	}
	if r.counters.Bodies.Load()+s.Arrived+uint64(s.Relays) == 0 && len(refused)+len(s.Turned) == 0 {
		return console.Status{} // no runtime's spans are wanted
	}
	sandboxes := fmt.Sprintf("%d sandboxes", s.Relays)
	if s.Relays == 1 {
		sandboxes = "1 sandbox"
	}
	parts := []string{sandboxes, console.Spans(int(s.Arrived))}
	if n := r.counters.Exporter.Load(); n > 0 {
		parts = append(parts, fmt.Sprintf("%d of the exporter's own left out", n))
	}
	if s.Held > 0 {
		parts = append(parts, fmt.Sprintf("%d held", s.Held))
	}
	for _, text := range []string{
		console.ByReason("lost", s.Lost), console.ByReason("posts refused", refused), console.ByReason("connections not listened to", s.Turned),
	} {
		if text != "" {
			parts = append(parts, text)
		}
	}
	return console.Status{
		Line:    strings.Join(parts, ", "),
		Matters: sandboxes,
		Losses:  console.ByReason("", s.Lost) + console.ByReason("", refused),
	}
}
