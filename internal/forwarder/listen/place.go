package listen

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/mdlayher/socket"
)

// place brings a connection to its relay, or keeps it.
func (p *porter) place(ctx context.Context, conn *socket.Conn, cid uint32) {
	if !p.enter(cid) {
		conn.Close()
		return
	}
	defer p.leave(cid)
	patience := time.NewTimer(p.share.opts.Hold)
	defer patience.Stop()
	waits := false
	for {
		p.mu.Lock()
		relay, news := p.claims[cid], p.news
		p.mu.Unlock()
		if relay != nil {
			err := p.handOver(relay, conn, cid)
			if err == nil {
				return
			}
			p.share.report.Tell(fmt.Errorf("hand over the connection of VM %d: %w", cid, err))
			p.dismiss(relay)
			continue
		}
		if cid < firstGuest {
			conn.Close() // of the host itself, which has no agent
			return
		}
		if !waits {
			if waits = p.wait(); !waits {
				p.keep(conn, cid)
				return
			}
			defer p.unwait()
		}
		select {
		case <-news:
		case <-patience.C:
			p.keep(conn, cid)
			return
		case <-ctx.Done():
			p.passOn(conn, cid)
			return
		}
	}
}

// handOver gives a connection away.
func (p *porter) handOver(relay *net.UnixConn, conn *socket.Conn, cid uint32) error {
	d, err := passable(conn)
	if err == nil {
		err = send(relay, kindConnection, cid, d)
	}
	if err == nil {
		conn.Close()
	}
	return err
}

// keep gives the connection to our own relay, as of an unknown sandbox.
func (p *porter) keep(conn *socket.Conn, cid uint32) {
	p.share.handle(conn, Origin{CID: cid})
}

// passOn gives a connection that waits when the porter ends to any other relay.
func (p *porter) passOn(conn *socket.Conn, cid uint32) {
	p.mu.Lock()
	links := slices.Collect(maps.Keys(p.links))
	p.mu.Unlock()
	for _, link := range links {
		if p.handOver(link, conn, cid) == nil {
			return
		}
	}
	conn.Close()
}

// enter admits a connection of a VM unless others of it are being placed, more
// than any agent has.
func (p *porter) enter(cid uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.placing[cid] >= maxPlacing {
		return false
	}
	p.placing[cid]++
	return true
}

func (p *porter) leave(cid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.placing[cid]--; p.placing[cid] == 0 {
		delete(p.placing, cid)
	}
}

// wait reserves room for a connection that nobody has claimed.
func (p *porter) wait() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting >= p.share.opts.MaxHeld {
		return false
	}
	p.waiting++
	return true
}

func (p *porter) unwait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting--
}
