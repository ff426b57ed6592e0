package main

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/receiver"
)

func forwardCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:  "forward",
		Usage: "receive the spans of Kata agents on a host without the tracing shim",
		Description: "Takes the place of Kata's own trace-forwarder, for all VMs of the host at once. It needs no\n" +
			"collector: spans go to the journal, and are shipped from there to --otlp-endpoint or to the\n" +
			"configured one, whenever it is there. Without an endpoint the journal is the store; see\n" +
			"shimtrace list. See docs/forwarder.md.\n\n" +
			"Examples:\n   shimtrace forward                     # QEMU's VMs\n" +
			"   shimtrace forward --all --otlp-endpoint http://127.0.0.1:4318\n" +
			"   shimtrace forward --socket-path '/run/vc/vm/{sandbox}/clh.sock' --user nobody\n" +
			"   shimtrace forward --dump-only",
		Flags:                     forwardFlags(),
		DisableSliceFlagSeparator: true,
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			o, err := h.forwardOptions(c)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(ctx)
			defer stop()
			return h.forward(ctx, o)
		},
	}
}

// intake is where connections go.
type intake interface {
	// Take is a listen.Handler.
	Take(conn listen.Conn, from listen.Origin)
	// Run does what is to be done from time to time, until ctx is done. An error
	// says that it is no use to go on.
	Run(ctx context.Context) error
	// Close ends the intake when Run has returned: all that has arrived is brought
	// where it belongs, as far as that can be done until ctx is done.
	Close(ctx context.Context) error
	Status() forwardStatus
}

// source is where connections come from.
type source interface {
	// serve hands connections on until ctx is done or no more can come.
	serve(ctx context.Context, handle listen.Handler) error
}

// reportInterval is how often is looked whether something has changed that matters.
const reportInterval = 5 * time.Second

// closeIntake bounds how long the end of the process waits for what has arrived;
// the shipper has its own time after that.
const closeIntake = 5 * time.Second

func (h *host) forward(ctx context.Context, o *forwardOptions) error {
	report := console.New(h.stderr, o.level)
	defer report.Close()
	var from source
	link, err := inheritedLink(h.getenv)
	switch {
	case err != nil:
		return err
	case link != nil:
		from = link
	default:
		s, err := newSockets(o, report)
		if err != nil {
			return err
		}
		if o.user != nil {
			return h.forwardAs(ctx, o, s, report)
		}
		from = s
	}
	to, err := h.openIntake(o, report)
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	var failures [2]error
	running.Go(func() {
		defer stop()
		failures[0] = from.serve(ctx, to.Take)
	})
	running.Go(func() {
		defer stop()
		failures[1] = to.Run(ctx)
	})
	running.Go(func() { report.Watch(ctx, reportInterval, func() console.Status { return to.Status().console() }) })
	running.Wait()

	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeIntake)
	defer cancel()
	err = errors.Join(failures[0], failures[1], to.Close(bound))
	if s := to.Status(); o.json {
		report.End("")
		err = errors.Join(err, json.NewEncoder(h.stdout).Encode(s.summary()))
	} else {
		report.End(s.end())
	}
	return err
}

// openIntake opens what connections are read for.
func (h *host) openIntake(o *forwardOptions, report *console.Console) (intake, error) {
	if o.dump {
		return newDump(o, h.stdout), nil
	}
	return openStore(o, report)
}

// forwardStatus is what has happened so far.
type forwardStatus struct {
	receiver.Snapshot
	journal string       // its directory, empty if there is none
	ship    *ship.Status // nil: nothing is shipped
}
