package listen

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// porter accepts for all relays of the host.
type porter struct {
	share  *VSOCK // of the relay that is the porter
	lock   *os.File
	relays *net.UnixListener
	visits sync.WaitGroup // of VMs, until they are placed
	work   sync.WaitGroup // all the rest

	mu       sync.Mutex
	ended    bool // no more links
	links    map[*net.UnixConn]struct{}
	claims   map[uint32]*net.UnixConn
	news     chan struct{}  // closed and replaced when a CID is claimed
	placing  map[uint32]int // connections on their way, by CID
	waiting  int            // those of them that nobody has claimed
	listener *socket.Conn
	opened   chan struct{} // closed when listener is set
}

const (
	// maxLinks bounds the relays, and with them what they can claim.
	maxLinks = 4096
	// maxClaims bounds what one relay, which has one sandbox, can claim.
	maxClaims = 16
	// maxPlacing bounds the connections of one VM on their way to a relay; an agent
	// has one. What is beyond is closed.
	maxPlacing = 4
)

// becomePorter takes the lock and the socket that goes with it; EWOULDBLOCK if
// another relay is the porter.
func (v *VSOCK) becomePorter() (*porter, error) {
	lock, err := v.lock()
	if err != nil {
		return nil, err
	}
	// Until the mode is set the directory, which is closed to others, guards it.
	_ = os.Remove(v.socketPath())
	relays, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: v.socketPath(), Net: "unixpacket"})
	if err == nil {
		if err = os.Chmod(v.socketPath(), 0o600); err != nil {
			relays.Close()
		}
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("VSOCK porter: %w", err)
	}
	return &porter{
		share:   v,
		lock:    lock,
		relays:  relays,
		links:   make(map[*net.UnixConn]struct{}),
		claims:  make(map[uint32]*net.UnixConn),
		news:    make(chan struct{}),
		placing: make(map[uint32]int),
		opened:  make(chan struct{}),
	}, nil
}

// run is the porter's life. It ends when ctx is done; then the relays find
// another.
func (p *porter) run(ctx context.Context) {
	defer p.lock.Close()
	if l := p.share.copyListener(); l != nil {
		p.adopt(l)
	}
	p.work.Go(p.admit)
	p.work.Go(func() { p.open(ctx) })
	p.visits.Go(func() { p.accept(ctx) })
	<-ctx.Done()
	p.visits.Wait()  // what waits is passed on to other relays
	p.relays.Close() // and removes its file
	p.mu.Lock()
	p.ended = true
	for conn := range p.links {
		conn.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
	if p.listener != nil {
		p.listener.Close()
	}
}

// admit takes in relays.
func (p *porter) admit() {
	for {
		conn, err := p.relays.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			if err = host.CheckPeer(conn, uint32(os.Geteuid())); err != nil {
				conn.Close()
			}
		}
		if err != nil {
			p.share.report.Tell(fmt.Errorf("VSOCK porter: %w", err))
			time.Sleep(acceptPause)
			continue
		}
		p.work.Go(func() { p.serve(conn) })
	}
}

// serve listens to one relay until it ends.
func (p *porter) serve(conn *net.UnixConn) {
	p.mu.Lock()
	full := len(p.links) >= maxLinks
	welcome := !full && !p.ended
	if welcome {
		p.links[conn] = struct{}{}
	}
	listener := p.listener
	p.mu.Unlock()
	if full {
		p.share.report.Tell(fmt.Errorf("VSOCK porter: more than %d relays; this one gets no spans", maxLinks))
	}
	if !welcome {
		conn.Close()
		return
	}
	defer p.dismiss(conn)
	if listener != nil && p.shareListener(conn, listener) != nil {
		return
	}
	claims := 0
	for {
		m, err := receive(conn)
		if err != nil {
			return
		}
		switch m.kind {
		case kindListener:
			if l, err := socketOf(m.file); err == nil {
				p.adopt(l)
			}
		case kindClaim:
			if claims++; claims <= maxClaims {
				p.claim(m.cid, conn)
			}
		default:
			m.close()
		}
	}
}

// dismiss forgets a relay; one that lives comes back.
func (p *porter) dismiss(conn *net.UnixConn) {
	conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, conn)
	for cid, owner := range p.claims {
		if owner == conn {
			delete(p.claims, cid)
		}
	}
}

func (p *porter) claim(cid uint32, conn *net.UnixConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims[cid] = conn
	close(p.news)
	p.news = make(chan struct{})
}

// adopt takes the listening socket if there is none yet, and tells all relays.
func (p *porter) adopt(l *socket.Conn) {
	p.mu.Lock()
	if p.listener != nil {
		p.mu.Unlock()
		l.Close()
		return
	}
	p.listener = l
	close(p.opened)
	links := slices.Collect(maps.Keys(p.links))
	p.mu.Unlock()
	for _, conn := range links {
		_ = p.shareListener(conn, l) // a relay that ends needs none
	}
}

func (p *porter) shareListener(conn *net.UnixConn, l *socket.Conn) error {
	d, err := passable(l)
	if err != nil {
		return err
	}
	return send(conn, kindListener, 0, d)
}

// open opens the port, unless it is open: then a relay has it, and offers it.
func (p *porter) open(ctx context.Context) {
	for {
		p.mu.Lock()
		have := p.listener != nil
		p.mu.Unlock()
		if have {
			return
		}
		l, err := p.share.opts.transport.listen()
		if err == nil {
			p.adopt(l)
			return
		}
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("%w: until another program lets go of the port, no spans come from QEMU's VMs", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-p.opened:
			return
		case <-time.After(listenPause):
			p.share.report.Tell(err) // not before relays had time to offer theirs
		}
	}
}

// accept accepts VMs.
func (p *porter) accept(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-p.opened:
	}
	for {
		conn, cid, err := p.share.opts.transport.accept(ctx, p.listener)
		if ctx.Err() != nil {
			if err == nil {
				p.place(ctx, conn, cid)
			}
			return
		}
		if err != nil {
			p.share.report.Tell(fmt.Errorf("accept at VSOCK port %d: %w", Port, err))
			time.Sleep(acceptPause)
			continue
		}
		p.visits.Go(func() { p.place(ctx, conn, cid) })
	}
}
