package guard

import (
	"errors"
	"fmt"
	"io"
	"math"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// link is the guard's side of a connection: to a relay, to a process that is to follow
// one, or to the operator's tool.
type link struct {
	fd    int
	out   []outgoing // what there was no room for
	relay *relay     // whose it is; nil before it has registered
	next  *successor // the successor that it is of; nil for others
	asked bool       // it is the operator's tool
}

// outgoing is a message with descriptors, which belong to others.
type outgoing struct {
	message
	files []int
}

// maxOutgoing bounds what waits for a process that does not read.
const maxOutgoing = 2 * maxEntries

// newLink returns a link for a descriptor, which it takes over; nil if the descriptor
// cannot be watched.
func (s *server) newLink(fd int) *link {
	k := &link{fd: fd}
	if err := s.watch(fd, unix.EPOLLIN, func(events uint32) { s.ready(k, events) }); err != nil {
		unix.Close(fd)
		s.opts.Logf("guard: %v", err)
		return nil
	}
	widen(fd)
	s.links[k] = struct{}{}
	return k
}

func (s *server) ready(k *link, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		s.flush(k)
	}
	if events&^unix.EPOLLOUT != 0 {
		s.receive(k, maxAtOnce)
	}
}

// maxAtOnce is how many messages of one link are taken before those of others.
const maxAtOnce = 64

// receive takes what a link has said, at most so many messages.
func (s *server) receive(k *link, most int) {
	for ; k.fd >= 0 && most > 0; most-- {
		m, files, err := receivePacket(k.fd, s.buf[:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil:
			if !errors.Is(err, io.EOF) {
				s.refuse(k, err)
			}
			s.drop(k)
			return
		}
		if err := s.take(k, m, files); err != nil {
			s.refuse(k, err)
			s.drop(k)
			return
		}
	}
}

// take does what a message says, and takes over its descriptors.
func (s *server) take(k *link, m message, files []int) (err error) {
	keep := false
	defer func() {
		if !keep {
			host.CloseAll(files)
		}
	}()
	s.heard, s.quiet = true, 0
	r := k.relay
	if r != nil {
		r.heard++
	}
	switch {
	case m.Type == typeRegister:
		keep, err = s.register(k, *m.Who, files[0])
		return err
	case k.next != nil:
		s.successorSaid(k, m)
	case r == nil:
		return s.asked(k, m)
	case m.Type == typeStore:
		keep = true
		return r.store(m, files)
	case m.Type == typeRemove:
		r.remove(m.Name)
	case m.Type == typeComplete:
		r.complete = true
		s.tick()
	case m.Type == typeClaim:
		s.claim(r, m.CID)
	case m.Type == typeFollow:
		return s.follows(r, followed{m.PID, m.Start, m.VM})
	case m.Type == typeWatch:
		s.watchFiles(r, m.Paths)
	case m.Type == typeLeaving:
		s.forget(r)
	case m.Type == typeHandedOver:
		s.handedOver(r)
	case m.Type == typeRefused:
		s.failUpgrade(r, errors.New(m.Error))
	}
	return nil
}

// refuse tells the other side why it is not taken.
func (s *server) refuse(k *link, err error) {
	who, name := Registration{}, "a process"
	if k.relay != nil {
		who, name = k.relay.who, k.relay.String()
	}
	s.logf(who, "%s is not guarded: %v", name, err)
	_ = sendPacket(k.fd, message{Type: typeRefused, Error: err.Error()})
}

// send sends a message, now or when there is room.
func (s *server) send(k *link, m message, files ...int) error {
	switch {
	case k.fd < 0:
		return io.ErrClosedPipe
	case len(k.out) >= maxOutgoing:
		return fmt.Errorf("%d messages wait to be read: %w", len(k.out), unix.EAGAIN)
	case len(k.out) == 0:
		if err := sendPacket(k.fd, m, files...); !errors.Is(err, unix.EAGAIN) {
			return err
		}
		if err := s.watch(k.fd, unix.EPOLLIN|unix.EPOLLOUT, s.watched[k.fd]); err != nil {
			return err
		}
	}
	k.out = append(k.out, outgoing{m, files})
	return nil
}

func (s *server) flush(k *link) {
	for len(k.out) > 0 {
		o := k.out[0]
		switch err := sendPacket(k.fd, o.message, o.files...); {
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil: // it would miss this one
			s.opts.Logf("guard: a message is not sent: %v", err)
			s.drop(k)
			return
		}
		k.out = k.out[1:]
	}
	_ = s.watch(k.fd, unix.EPOLLIN, s.watched[k.fd])
}

// drop ends a link. What its relay has stored stays until the relay ends, if it is
// complete.
func (s *server) drop(k *link) {
	if k.fd < 0 {
		return
	}
	s.loop.close(k.fd)
	k.fd = -1
	k.out = nil
	delete(s.links, k)
	if r := k.relay; r != nil && r.link == k {
		r.link = nil
		if s.unclaim(r); !r.complete {
			s.forget(r) // it is of no use to anybody
		}
	}
}

// drain takes what a process that has ended has said before.
func (s *server) drain(k *link) {
	if k != nil {
		s.receive(k, math.MaxInt)
		s.drop(k)
	}
}

// logf writes a line about a relay's sandbox, with its trace as OpenTelemetry names it in logs.
func (s *server) logf(about Registration, format string, args ...any) {
	line := "guard: " + fmt.Sprintf(format, args...)
	if about.TraceID != "" {
		line += fmt.Sprintf(" trace_id=%s span_id=%s", about.TraceID, about.SpanID)
	}
	s.opts.Logf("%s", line)
}

func (r *relay) String() string {
	return fmt.Sprintf("the relay of sandbox %s, process %d", r.who.Sandbox, r.pid)
}
