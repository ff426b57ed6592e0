package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
	local "github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/keeper"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
)

func receiveCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:  "receive",
		Usage: "receive the spans of Kata's own runtimes for the relays of this host",
		Description: "Relays start this by themselves for Kata's runtimes, see [jaeger] of the configuration; one\n" +
			"process receives for the whole host, and another one leaves at once with exit code 0. It is the\n" +
			"endpoint that the runtimes post to (jaeger_endpoint), and brings each span to the relay of its\n" +
			"sandbox. See docs/operation.md.\n\n" +
			"Examples:\n   shimtrace receive --idle 0     # as a service, from before the first relay\n" +
			"   shimtrace receive --listen 127.0.0.1:24268",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "take posts at `ADDRESS`, of the loopback interface, in the place of the configured one"},
			&cli.DurationFlag{Name: "idle", Value: time.Minute, Usage: "end when there was no relay for `DURATION`; 0 is never"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.Duration("idle") < 0 {
				return usageError("--idle %s: a duration is not negative", c.Duration("idle"))
			}
			if at := c.String("listen"); at != "" {
				if a, err := netip.ParseAddrPort(at); err != nil || !a.Addr().IsLoopback() {
					return usageError("--listen %s: not an address of the loopback interface with a port, such as 127.0.0.1:276", at)
				}
			}
			ctx, stop := untilSignal(ctx)
			defer stop()
			return h.receive(ctx, c.String("listen"), c.Duration("idle"))
		},
	}
}

func (h *host) receive(ctx context.Context, at string, idle time.Duration) error {
	cfg := h.config("")
	configured := h.configuredListen(cfg.Jaeger.Listen)
	if at != "" {
		cfg.Jaeger.Listen = at
		configured = func() string { return at }
	}
	seat, err := takeSeat(cfg)
	if errors.Is(err, local.ErrLocked) {
		h.warn("another process receives for this host already")
		return nil
	}
	if err != nil {
		return err
	}
	defer seat.close()
	// What is lost is counted in the journal, beside other losses.
	// Posts do not wait for its disk.
	j := journal.New(cfg.Journal.Dir, journal.Options{
		MaxBytes:     int64(cfg.Journal.MaxBytes),
		SegmentBytes: int64(cfg.Journal.SegmentBytes),
		Shipped:      cfg.Export.Endpoint != "",
	})
	if err := j.Within(receiveDiskTime, j.Check); errors.Is(err, journal.ErrHangs) {
		h.warn("%v; losses are not counted until it does", err)
	} else if err != nil {
		return err
	}
	r, err := newReception(cfg, seat, j, &receiveReport{newForwardReport(h, slog.LevelInfo)})
	if err == nil {
		err = r.run(ctx, idle, configured)
	}
	return errors.Join(err, j.Within(receiveDiskTime, j.Close))
}

// receiveDiskTime bounds how long the process waits for the journal's disk.
const receiveDiskTime = time.Second

// seat is what a host has once: the lock, the port, and the socket for relays.
type seat struct {
	lock   *os.File
	pings  io.Closer
	port   *net.TCPListener
	relays *local.Listener

	pending   *atomic.Int64 // see route.OpenPending
	left      int64
	uncounted error // why pending ends with this process
}

// takeSeat takes over what a relay has left to us, or takes it itself: ErrHeld if
// another process has it.
func takeSeat(cfg config.Config) (_ *seat, err error) {
	dir := filepath.Join(cfg.Relay.StateDir, "runtimes")
	if err := route.MakeDir(dir); err != nil {
		return nil, err
	}
	s := new(seat)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	var left []*os.File
	if s.lock, left = keeper.Inherited(route.LockPath(dir)); s.lock == nil {
		if s.lock, err = local.LockFile(route.LockPath(dir), unix.LOCK_EX, 0); err != nil {
			return nil, err
		}
	}
	if s.pings, err = keeper.Answer(route.LockPath(dir), nil, nil); err != nil {
		return nil, err
	}
	for _, f := range left {
		l, lerr := net.FileListener(f)
		f.Close()
		switch {
		case lerr != nil:
		case s.port == nil && l.Addr().Network() == "tcp" && l.Addr().String() == cfg.Jaeger.Listen:
			s.port = l.(*net.TCPListener)
		default:
			l.Close()
		}
	}
	if s.port == nil {
		if s.port, err = route.Open(cfg.Jaeger.Listen); err != nil {
			return nil, fmt.Errorf("endpoint of the runtimes: %w", err)
		}
	}
	if s.relays, err = route.Listen(dir); err != nil {
		return nil, err
	}
	if s.pending, s.left, s.uncounted = route.OpenPending(dir); s.uncounted != nil {
		s.pending = new(atomic.Int64)
	}
	return s, nil
}

func (s *seat) close() {
	if s.relays != nil {
		s.relays.Close()
	}
	if s.port != nil {
		s.port.Close()
	}
	if s.pings != nil {
		s.pings.Close()
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

// reception is the way of spans through this process.
type reception struct {
	seat     *seat
	journal  *journal.Journal
	report   *receiveReport
	counters endpoint.Counters
	port     net.Listener // without strangers
	endpoint *endpoint.Endpoint
	router   *route.Router
	told     map[endpoint.Reason]uint64 // of the endpoint's losses, so far
}

func newReception(cfg config.Config, seat *seat, j *journal.Journal, report *receiveReport) (_ *reception, err error) {
	r := &reception{seat: seat, journal: j, report: report, told: make(map[endpoint.Reason]uint64)}
	r.router = route.NewRouter(route.RouterOptions{
		HeldBytes: int(cfg.Jaeger.HeldBytes),
		Settle:    func(ctx context.Context) { _ = r.endpoint.Flush(ctx) },
		Drops:     j,
		Pending:   seat.pending,
		Warn:      report.warn,
	})
	if r.port, err = r.router.Guard(seat.port); err != nil {
		return nil, err
	}
	r.endpoint = endpoint.New(r.router.Take, endpoint.Options{
		Span:     agentconfig.Forwarder(cfg.Agent).Wire.Options,
		MaxBody:  int(cfg.Jaeger.BodyBytes),
		Report:   func(_ endpoint.Reason, err error) { report.warn(err) },
		Counters: &r.counters,
		Pending:  seat.pending,
	})
	report.warn(seat.uncounted)
	if seat.left > 0 {
		j.Drop(route.DropReason(route.ReasonEndpointGone), int(seat.left))
		report.warn(fmt.Errorf("the process before this one was killed when it had %d spans, which are lost", seat.left))
	}
	return r, nil
}

// closeReception bounds how long the end of the process waits for posts at hand, and
// then for relays to take what is theirs.
const closeReception = 2 * time.Second

// run receives until ctx is done, or there was no relay for the idle time, at the
// seat's port and at what is configured later.
func (r *reception) run(ctx context.Context, idle time.Duration, configured func() string) error {
	r.report.info("runtimes may post to http://%s%s", r.port.Addr(), endpoint.Path)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	var failure error
	running.Go(func() {
		defer stop()
		failure = r.endpoint.Serve(r.port)
	})
	var telling sync.WaitGroup
	telling.Go(func() { r.report.watch(ctx, r.status, r.tell) })
	telling.Go(func() { giveBack(ctx, r.counters.Bodies.Load) })
	telling.Go(func() {
		r.followPorts(ctx, configured, func(port net.Listener) {
			running.Go(func() { r.report.warn(r.endpoint.Serve(port)) })
		})
	})
	r.router.Serve(ctx, r.seat.relays, idle)

	posts, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeReception)
	defer cancel()
	if err := r.endpoint.Close(posts); err != nil {
		r.report.warn(err) // of somebody who takes long to post
	}
	stop()
	telling.Wait()
	running.Wait()
	relays, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeReception)
	defer cancel()
	r.router.Close(relays)
	r.tell()
	r.report.end(r.status())
	return failure
}

// tell counts in the journal what the endpoint has lost since the last time. Of a
// post that could not be read nobody knows the number of spans; it counts as one.
// What the exporter traced of itself is no loss.
func (r *reception) tell() {
	for _, reason := range endpoint.Reasons() {
		lost := r.counters.Lost(reason)
		n := lost - r.told[reason]
		r.told[reason] = lost
		if n == 0 || reason == endpoint.Exporter {
			continue
		}
		name := reason.String()
		if reason.Requests() {
			name += "_post"
		}
		r.journal.Drop(route.DropReason(name), int(n))
	}
	if err := r.journal.Within(receiveDiskTime, r.journal.Flush); err != nil {
		r.report.warn(err) // the journal keeps the counts for its next record
	}
}

func (r *reception) status() receiveStatus {
	s := receiveStatus{Snapshot: r.router.Snapshot(), posts: r.counters.Bodies.Load(), exporter: r.counters.Lost(endpoint.Exporter)}
	for _, reason := range endpoint.Reasons() {
		if n := r.counters.Lost(reason); n > 0 && reason != endpoint.Exporter {
			if reason.Requests() {
				s.refuse(reason.String(), n)
			} else {
				s.Lost[reason.String()] += n
			}
		}
	}
	if n := r.counters.TurnedAway.Load(); n > 0 {
		s.refuse("connections", n)
	}
	return s
}
