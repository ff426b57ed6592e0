package route

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/loglimit"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// LinkOptions say whose spans a Link is for.
type LinkOptions struct {
	// Dir is the directory that the host's relays share with their endpoint. It need
	// not exist.
	Dir string
	// Sandbox is the sandbox's id.
	Sandbox string
	// Ensure is called when no process serves the endpoint, to start one. It must not
	// block for long.
	Ensure func()
	// Losses counts spans that arrived and were lost.
	Losses *losses.Tally
	// Warn is told of failures, not of the same one twice in a row; none of them ends
	// Serve.
	Warn func(error)
}

// Link is a relay's connection to the endpoint. It reconnects when the endpoint's
// process is replaced.
type Link struct {
	opts   LinkOptions
	take   func(*span.Span)
	report loglimit.Reporter

	leaving chan struct{} // closed by Leave
	leave   func()
	over    chan struct{} // closed when Serve has returned

	mu        sync.Mutex
	processes []host.Process
	conn      *net.UnixConn // nil: not connected
}

// NewLink returns a Link whose Serve calls take with each span, one after another.
func NewLink(opts LinkOptions, take func(*span.Span)) *Link {
	l := &Link{opts: opts, take: take, report: loglimit.Reporter{To: opts.Warn}, leaving: make(chan struct{}), over: make(chan struct{})}
	l.leave = sync.OnceFunc(func() { close(l.leaving) })
	return l
}

// Processes names the processes of the sandbox's runtime, by PID and Start. It may be
// called before and while Serve runs.
func (l *Link) Processes(all ...host.Process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.processes = all
	if l.conn != nil {
		// If this fails, the endpoint is gone; the next one gets the claim.
		_ = l.send(l.conn, l.claim())
	}
}

// Pauses between attempts to connect. The first ones follow the endpoint's start, or
// its end, when the next one takes some ten milliseconds to start.
const (
	soon   = 5 * time.Millisecond
	seldom = 5 * time.Second
	// steady is how long a connection must last for the pauses to start anew.
	steady = time.Second
	// sendTimeout bounds how long the endpoint may take to make room for a message.
	sendTimeout = time.Second
)

// Serve takes spans until ctx is done or Leave has been answered. It is called once.
func (l *Link) Serve(ctx context.Context) {
	defer close(l.over)
	pause := soon
	for {
		began := time.Now()
		conn, err := l.dial(ctx)
		if err == nil {
			err = l.attend(ctx, conn)
			if time.Since(began) > steady {
				pause = soon
			}
		}
		if ctx.Err() != nil || l.isLeaving() {
			return
		}
		l.opts.Ensure()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-l.leaving:
		case <-timer.C:
		}
		timer.Stop()
		if pause = min(2*pause, seldom); pause == seldom && err != nil {
			l.report.Tell(fmt.Errorf("connect to the runtimes' endpoint: %w", err))
		}
	}
}

// Leave asks for the spans under way and waits until Serve has taken them and returned,
// or ctx is done.
func (l *Link) Leave(ctx context.Context) {
	l.leave()
	select {
	case <-l.over:
	case <-ctx.Done():
	}
}

func (l *Link) isLeaving() bool {
	select {
	case <-l.leaving:
		return true
	default:
		return false
	}
}

func (l *Link) dial(ctx context.Context) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	conn, err := host.DialUnix(ctx, "unix", socketPath(l.opts.Dir))
	if err != nil {
		return nil, err
	}
	if err := host.CheckPeer(conn, uint32(os.Geteuid())); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// attend takes spans from one endpoint until either side ends the connection.
func (l *Link) attend(ctx context.Context, conn *net.UnixConn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	l.mu.Lock()
	err := l.send(conn, l.claim())
	if err == nil {
		l.conn = conn
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		select {
		case <-l.leaving:
			l.mu.Lock()
			defer l.mu.Unlock()
			_ = l.send(conn, appendMessage(nil, kindEnd, nil))
		case <-ended:
		}
	})
	defer asking.Wait()
	defer close(ended)
	defer func() {
		l.mu.Lock()
		l.conn = nil
		l.mu.Unlock()
	}()
	messages := receiver{from: bufio.NewReaderSize(conn, 32<<10), most: maxMessage}
	for {
		kind, payload, err := messages.next()
		if err != nil {
			if errors.Is(err, errProtocol) {
				l.report.Tell(err)
			}
			return err
		}
		switch kind {
		case kindSpan:
			l.span(payload)
		case kindEnd:
			return nil
		}
	}
}

// claim returns the claim message. The caller holds the lock.
func (l *Link) claim() []byte {
	c := claim{Sandbox: l.opts.Sandbox}
	for _, p := range l.processes {
		c.Processes, c.Started = append(c.Processes, p.PID), append(c.Started, p.Start)
	}
	return claimMessage(c)
}

func (l *Link) send(conn *net.UnixConn, message []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err := conn.Write(message)
	return err
}

// span passes on one span. A panic costs only that span.
func (l *Link) span(payload []byte) {
	defer func() {
		if p := recover(); p != nil {
			l.opts.Losses.Add(losses.Panic, 1)
			l.report.Tell(fmt.Errorf("a runtime's span: panic: %v", p))
		}
	}()
	s, err := span.Parse(payload)
	if err != nil {
		l.opts.Losses.Add(losses.Malformed, 1)
		l.report.Tell(err)
		return
	}
	l.take(s)
}
