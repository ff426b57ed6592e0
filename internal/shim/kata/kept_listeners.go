package kata

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/forwarder/interpose"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/middleware"
)

// seats returns the places that another process has taken.
func (o *Observer) seats() (all []interpose.Seat) {
	for _, e := range o.left(entrySeat) {
		s, err := seatOf(e)
		if err != nil {
			o.warnOfRequests(err)
			o.Guard.Remove(e.Name)
			continue
		}
		o.know(s.Own, e.Name)
		all = append(all, s)
	}
	return all
}

func seatOf(e guard.Received) (s interpose.Seat, err error) {
	if len(e.Files) != 2 {
		return s, errors.New("a place of a VMM's socket was left without its descriptors")
	}
	if err := json.Unmarshal(e.Data, &s); err != nil {
		return s, fmt.Errorf("a place of a VMM's socket: %w", err)
	}
	if s.Listener, err = host.UnixListener(e.Files[0]); err != nil {
		return s, fmt.Errorf("the place of %s: %w", s.Path, err)
	}
	s.Hold = e.Files[1]
	return s, nil
}

// taken has a place kept before anybody who connects there is served.
func (o *Observer) taken(s interpose.Seat) {
	o.keepListener(entrySeat, s.Own, s, o.warnOfRequests, s.Listener, s.Hold)
}

// seatLeft has a place not kept any more.
func (o *Observer) seatLeft(s interpose.Seat) { o.listenerLeft(s.Own) }

// sockets returns those for the agent that another process has bound.
func (o *Observer) sockets() (all []listen.Socket) {
	for _, e := range o.left(entryHybrid) {
		b, err := socketOf(e)
		if err != nil {
			o.warnOfSpans(err)
			o.Guard.Remove(e.Name)
			continue
		}
		o.know(b.ID, e.Name)
		all = append(all, b)
	}
	return all
}

func socketOf(e guard.Received) (b listen.Socket, err error) {
	if len(e.Files) != 1 {
		return b, errors.New("a socket for the agent was left without its descriptor")
	}
	if err := json.Unmarshal(e.Data, &b); err != nil {
		return b, fmt.Errorf("a socket for the agent: %w", err)
	}
	if b.Listener, err = host.UnixListener(e.Files[0]); err != nil {
		return b, fmt.Errorf("the socket %s for the agent: %w", b.Path, err)
	}
	return b, nil
}

// listening has a socket kept, before anybody can connect to it.
func (o *Observer) listening(b listen.Socket) {
	o.keepListener(entryHybrid, b.ID, b, o.warnOfSpans, b.Listener)
}

// socketLeft has a socket not kept any more.
func (o *Observer) socketLeft(b listen.Socket) { o.listenerLeft(b.ID) }

// keepListener keeps the listener whose file has the id, with what is known of it.
func (o *Observer) keepListener(kind string, id vmmdir.ID, what any, warn func(error), files ...syscall.Conn) {
	data, err := json.Marshal(what)
	if err != nil {
		warn(err)
		return
	}
	o.keeping.Lock()
	name := o.listeners[id]
	if name == "" {
		name = o.Guard.Name(kind)
		o.listeners[id] = name
	}
	o.keeping.Unlock()
	o.Guard.Store(guard.Entry{Name: name, Data: data, Files: files})
}

// know has a listener keep its name.
func (o *Observer) know(id vmmdir.ID, name string) {
	o.keeping.Lock()
	defer o.keeping.Unlock()
	o.listeners[id] = name
}

func (o *Observer) listenerLeft(id vmmdir.ID) {
	o.keeping.Lock()
	name := o.listeners[id]
	delete(o.listeners, id)
	o.keeping.Unlock()
	o.Guard.Remove(name)
}

// GiveBack lets go of what another process has left and nobody is to go on with. On the
// runtime's connections to the agent nothing but bytes is relayed. VMMs' sockets whose
// places were taken get their names back. Agents that connect before stop is called are
// turned away, not refused.
func GiveBack(g Guard, left Left, cfg config.Agent, who state.Identity, warn func(error)) (stop func()) {
	relay := middleware.NewRelay(middleware.WithSwitch(new(middleware.Switch)), g.Handover(EntryRequest))
	for _, resume := range left.Requests {
		go resume(relay)
	}
	restore := false
	var stops []func()
	for _, e := range left.Entries {
		switch kind, _, _ := strings.Cut(e.Name, "/"); kind {
		case entryHybrid:
			if b, err := socketOf(e); err == nil {
				g.Store(e.Entry(b.Listener))
				stops = append(stops, b.TurnAway())
				continue
			}
		case entrySeat:
			restore = true
		}
		g.Remove(e.Name) // who connects is refused from now on
	}
	if restore {
		if err := interpose.Restore(who.Sandbox, agentconfig.Sockets(cfg)); err != nil {
			warn(err)
		}
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}
