package interpose

import (
	"fmt"
	"net"
)

// serve serves a client's connection to its end.
func (i *Interposer) serve(s *seat, client *net.UnixConn) {
	i.guard(s.path, func() bool { i.connect(s, client); return true })
}

func (i *Interposer) connect(s *seat, client *net.UnixConn) {
	// The VMM may have ended with the connection.
	defer i.nudge()
	defer func() { <-i.room }()
	ends := []*net.UnixConn{client}
	defer func() { i.conns.end(ends...) }()
	server, err := i.dial(s)
	if err != nil {
		return
	}
	i.conns.add(server)
	ends = append(ends, server)
	i.opts.step("dialed")
	c := connection{client: client, server: server, step: i.opts.step, panicked: func(v any) { i.panicked(s.path, v) }}
	v, err := c.handshake(i.opts.Port)
	switch {
	case err != nil:
		if i.opts.Warn != nil {
			i.opts.Warn(fmt.Errorf("connection at %s: %w", s.path, err))
		}
	case v == relays:
		i.relayed.Add(1)
		i.opts.Relay(c.ahead())
	case c.asked:
		i.attempts.Add(1)
	default:
		i.passed.Add(1)
	}
}

func (i *Interposer) dial(s *seat) (*net.UnixConn, error) {
	defer s.dials.Done()
	i.opts.step("accepted")
	return s.dial(i.conns.ctx)
}
