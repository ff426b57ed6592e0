package interpose

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/loglimit"
	"github.com/shimtrace/shimtrace/internal/sleep"
)

// seat is our socket in the place of the VMM's.
type seat struct {
	*net.UnixListener
	path, name, hidden string
	own, vmm           vmmdir.ID
	hold               *os.File // the VMM's socket, to connect to under any name
	dials              sync.WaitGroup
	over               chan struct{} // closed when accepting has ended

	heard   atomic.Bool // the VMM has accepted a connection
	refused atomic.Bool // the VMM no longer listens
}

const (
	// linger is how long a socket that has lost its name still accepts: clients may
	// have looked the name up before.
	linger = 100 * time.Millisecond
	// bindTime is how long a VMM may take from bind to listen.
	bindTime = time.Second
	// fullTime is how long a VMM may leave connections in a full queue.
	fullTime = 10 * time.Second
	// dialPause is the pause between attempts to connect.
	dialPause = time.Millisecond
)

// accept takes connections until the seat ends.
func (s *seat) accept(i *Interposer, report *loglimit.Reporter) {
	defer func() {
		s.Close()
		i.conns.running.Go(func() {
			s.dials.Wait()
			s.hold.Close()
		})
	}()
	accept := host.Lingering(s.UnixListener)
	_ = host.AcceptAll(context.Background(), func() (*net.UnixConn, error) {
		// Where there is room, who waits is accepted although the seat is over.
		select {
		case i.room <- struct{}{}:
		default:
			select {
			case i.room <- struct{}{}:
			case <-s.over:
				return nil, net.ErrClosed
			}
		}
		client, err := accept()
		if err != nil {
			<-i.room
		}
		return client, err
	}, func(client *net.UnixConn) {
		s.dials.Add(1)
		i.conns.begin(client)
		go i.serve(s, client)
	}, func(err error) { report.Tell(fmt.Errorf("accept at %s: %w", s.path, err)) })
}

// end stops accepting after linger.
func (s *seat) end() {
	_ = s.SetDeadline(time.Now().Add(linger))
	time.AfterFunc(linger, func() { close(s.over) })
}

// drop closes a seat that has never accepted.
func (s *seat) drop() {
	if s.UnixListener != nil {
		s.Close()
	}
	if s.hold != nil {
		s.hold.Close()
	}
}

// dial connects to the VMM. Between the VMM's bind and listen its socket refuses
// connections; dial waits for bindTime instead. A VMM that has listened before and
// refuses is dead.
func (s *seat) dial(ctx context.Context) (*net.UnixConn, error) {
	addr := &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d", s.hold.Fd()), Net: "unix"}
	for began := time.Now(); ; {
		conn, err := net.DialUnix("unix", nil, addr)
		waits := time.Since(began)
		switch {
		case err == nil:
			s.heard.Store(true)
			return conn, nil
		case errors.Is(err, unix.EAGAIN) && waits < fullTime:
		case errors.Is(err, unix.ECONNREFUSED) && !s.heard.Load() && waits < bindTime:
		default:
			if errors.Is(err, unix.ECONNREFUSED) {
				s.refused.Store(true)
			}
			return nil, err
		}
		if !sleep.For(ctx, dialPause) {
			return nil, ctx.Err()
		}
	}
}
