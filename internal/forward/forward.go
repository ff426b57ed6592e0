// Package forward receives the spans of Kata agents on a host without the tracing shim,
// as Kata's own trace-forwarder does, but for all VMs at once, later ones included.
// They go to the journal, and are shipped from there as package collect does.
//
// It does not know the calls that caused an agent's work, so each trace stands by itself.
package forward

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/collect"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
)

// intake takes connections.
type intake interface {
	// Take is a listen.Handler.
	Take(conn listen.Conn, from listen.Origin)
	// Run does periodic work until ctx is done. An error means that there is no use in
	// going on.
	Run(ctx context.Context) error
	// Close ends the intake after Run has returned. It delivers all that has arrived,
	// as far as possible until ctx is done.
	Close(ctx context.Context) error
	Status() status
}

// source yields connections.
type source interface {
	// serve hands connections on until ctx is done or no more can come.
	serve(ctx context.Context, handle listen.Handler) error
}

// reportInterval is the pause between two checks whether something important has
// changed.
const reportInterval = 5 * time.Second

// closeIntake bounds the wait, at the end, for what has arrived; the shipper has its
// own bound after that.
const closeIntake = 5 * time.Second

// Run receives until ctx is done. Spans and summaries are printed to out, messages go
// to report.
func Run(ctx context.Context, o *Options, out io.Writer, report *console.Console) error {
	if err := o.complete(); err != nil {
		return err
	}
	var from source
	link, err := inheritedLink(os.Getenv)
	switch {
	case err != nil:
		return err
	case link != nil:
		from = link
	default:
		s := newSockets(o, report)
		if o.account != nil {
			return forwardAs(ctx, o, s, report)
		}
		from = s
	}
	to, err := openIntake(o, out, report)
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
	if s := to.Status(); o.JSON {
		report.End("")
		err = errors.Join(err, json.NewEncoder(out).Encode(s.summary()))
	} else {
		report.End(s.end())
	}
	return err
}

// openIntake opens the intake that o asks for.
func openIntake(o *Options, out io.Writer, report *console.Console) (intake, error) {
	if o.Dump {
		return newDump(o, out), nil
	}
	return openStore(o, report)
}

// status is what has happened so far.
type status struct {
	forwarder.Snapshot
	journal string            // its directory, empty if there is none
	shipped []collect.Shipped // by target
}
