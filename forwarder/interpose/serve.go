package interpose

import (
	"fmt"
	"net"
)

// serve takes a client's connection to its end.
func (i *Interposer) serve(s *seat, client *net.UnixConn) {
	// The end of a connection may be the end of the VMM.
	defer i.nudge()
	defer func() { <-i.room }()
	i.opts.step("accepted")
	server, err := s.dial(i.conns.ctx)
	s.dials.Done()
	if err != nil {
		i.conns.end(client)
		return
	}
	i.conns.add(server)
	defer i.conns.end(client, server)
	i.opts.step("dialed")
	c := connection{client: client, server: server}
	v, err := c.handshake(i.opts.Port)
	switch {
	case err != nil:
		if i.opts.Warn != nil {
			i.opts.Warn(fmt.Errorf("connection at %s: %w", s.path, err))
		}
	case v == relays:
		i.relayed.Add(1)
		i.opts.Relay(withAhead(client, c.fromClient), withAhead(server, c.fromServer))
	case c.asked.Load():
		i.attempts.Add(1)
	default:
		i.passed.Add(1)
	}
}
