package guard

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Status is a relay as the guard knows it.
type Status struct {
	ID      string `json:"id"`
	Sandbox string `json:"sandbox"`
	Pod     string `json:"pod,omitempty"`
	PID     int    `json:"pid"`
	Build   string `json:"build,omitempty"`
	Program string `json:"program"`
	Entries int    `json:"entries"`
	// Guarded: another process would go on for it.
	Guarded bool `json:"guarded"`
	// Resumed is how often one has, and Cause why the last time.
	Resumed int   `json:"resumed,omitempty"`
	Cause   Cause `json:"cause,omitempty"`
}

func (r *relay) status() *Status {
	return &Status{
		ID: r.who.ID, Sandbox: r.who.Sandbox, Pod: r.who.Pod, PID: r.pid, Build: r.who.Build, Program: r.who.Program,
		Entries: len(r.entries), Guarded: r.complete, Resumed: r.resumed, Cause: r.last,
	}
}

// asked does what the operator's tool wants.
func (s *server) asked(k *link, m message) error {
	k.asked = true
	switch m.Type {
	case typePing:
		s.done(k, nil)
	case typeStatus:
		for _, r := range s.relays {
			_ = s.send(k, message{Type: typeRelay, Relay: r.status()})
		}
		s.done(k, nil)
	case typeUpgrade:
		if err := s.upgrade(k, m); err != nil {
			s.done(k, err)
		}
	case typeReplace:
		s.done(k, s.replace(m.Program))
	default:
		return fmt.Errorf("%w: %.20q by who has not registered", errProtocol, m.Type)
	}
	return nil
}

// done ends an answer.
func (s *server) done(k *link, err error) {
	s.doneAfter(k, 0, err)
}

func (s *server) doneAfter(k *link, pause time.Duration, err error) {
	m := message{Type: typeDone, PID: os.Getpid(), Who: &Registration{Build: s.opts.Build}, Pause: pause}
	if err != nil {
		m.Error = err.Error()
	}
	if err := s.processes.Err(); err != nil {
		m.Unrecorded = err.Error()
	}
	_ = s.send(k, m)
}

// replace becomes another guard; relays register with it as soon as their links end.
func (s *server) replace(program string) error {
	if s.opts.Replace == nil {
		return errors.New("this guard cannot be replaced")
	}
	for _, r := range s.relays {
		if r.pidfd < 0 || r.next != nil {
			return fmt.Errorf("sandbox %s is just getting another relay: try again", r.who.Sandbox)
		}
	}
	return s.opts.Replace(program, s.listener, s.port.fd)
}

// upgrade starts a standby for a relay, and then asks the relay to hand over.
func (s *server) upgrade(k *link, m message) error {
	r := s.relays[m.ID]
	switch {
	case r == nil:
		return errors.New("it is not guarded, or has ended")
	case !r.complete || r.pidfd < 0 || r.link == nil || r.next != nil:
		return errors.New("it is just registering, or getting another relay: try again")
	}
	r.asker, r.asked = k, time.Time{}
	r.next = &successor{relay: r, pidfd: -1, standby: true, dry: m.DryRun}
	s.start(r.next, m.Program, Upgrade)
	return nil
}

// standbyReady goes on with an upgrade when the standby says that it could go on.
func (s *server) standbyReady(n *successor) {
	r := n.relay
	switch {
	case !n.standby || n.told:
	case n.dry:
		s.answer(r, nil)
		s.discard(n)
	case r.link == nil:
		s.failUpgrade(r, errors.New("its relay has lost its link to the guard"))
	default:
		s.expire(n)
		r.asked = time.Now()
		if err := s.send(r.link, message{Type: typeHandOver}); err != nil {
			s.failUpgrade(r, err)
		}
	}
}

// handedOver has the standby go on: the relay has stopped, and ends.
func (s *server) handedOver(r *relay) {
	n := r.next
	if n == nil || !n.standby || n.told {
		// Its standby has gone meanwhile. Another one follows when its process ends.
		s.logf(r.who, "%v hands over, and there is no standby", r)
		return
	}
	s.drop(r.link)
	s.leave(r.pid, r.pidfd, 10*s.opts.second)
	r.pidfd, r.last = -1, Upgrade
	s.tell(n, Upgrade)
}

// failUpgrade tells whoever wanted an upgrade that it has failed. The relay goes on.
func (s *server) failUpgrade(r *relay, err error) {
	s.answer(r, err)
	if n := r.next; n != nil && n.standby && !n.told {
		s.discard(n)
	}
}

// answer tells whoever wanted an upgrade what has become of it.
func (s *server) answer(r *relay, err error) {
	if k := r.asker; k != nil {
		r.asker = nil
		if k.fd < 0 {
			return
		}
		pause := time.Duration(0)
		if err == nil && !r.asked.IsZero() {
			pause = time.Since(r.asked)
		}
		s.doneAfter(k, pause, err)
	}
}
