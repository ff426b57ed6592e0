package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/kata"
	"github.com/shimtrace/shimtrace/internal/shim/processors"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

// Attributes of the span that tells of a relay that went on for another one.
const (
	resumeCauseKey = attribute.Key(names.ResumeCause)
	resumeLostKey  = attribute.Key(names.ResumeLost)
)

// bytesOnly is the attempt from which on a relay does nothing but relay bytes: whatever
// ended those before it is not to end it as well.
const bytesOnly = 3

// Resume goes on for a relay that has ended, with all that it left. It comes in the place
// of Prepare, Take and Serve. If it fails nothing has been touched.
func Resume(o Options, got *guard.Resumption) (*Process, error) {
	limitMemory()
	p := &Process{Options: o, known: make(chan struct{})}
	p.Log, p.logs = telemetry.Correlate(p.Log)
	p.begin(o)
	left := make(map[string]guard.Received, len(got.Entries))
	for _, e := range got.Entries {
		left[e.Name] = e
	}
	if err := p.inherit(left); err != nil {
		return nil, err
	}
	connections := p.connections(entryConn, got.Entries)
	requests := p.connections(kata.EntryRequest, got.Entries)
	others := p.others(got.Entries)
	was, err := p.remember(left[entryMemory])
	p.Who = was.Who
	p.goOnWith(was)
	if err == nil && got.Attempt >= bytesOnly {
		err = fmt.Errorf("%d processes before this one have not stayed", got.Attempt-1)
	}
	if p.Guard.Dir != "" {
		p.Guard.Successor = got
		p.register() // from now on this one's death is as good as the other's
	}
	for _, name := range p.broken {
		p.guarded.Remove(name) // which ends both sides
	}
	katas := kata.Left{Saved: was.Kata, Entries: others, Requests: p.resumers(requests)}
	if err == nil {
		err = p.tryGoOn(was, katas)
	}
	if p.kata == nil {
		p.giveBack(katas)
	}
	close(p.known)
	relay := p.bytes()
	if err == nil {
		relay = p.relay()
	} else {
		p.Log.Error("this sandbox is not traced any more", "error", err)
		p.untraced = true
	}
	p.accept(relay, connections...)
	switch {
	case err != nil:
		if p.controlAt != nil { // who asks is to hear at once that nobody answers
			p.guarded.Remove(entryControl)
			p.controlAt.Close()
		}
		return p, nil
	case !p.state.Dynamic:
		go p.tel.Keeper.EnsureShipped()
	}
	if p.controlAt != nil {
		p.serveControl(p.controlAt)
	}
	p.told(got)
	return p, nil
}

// inherit takes what a relay cannot be without, and its listeners, if it was not leaving.
func (p *Process) inherit(left map[string]guard.Received) error {
	sentinel := left[entrySentinel]
	var known essentials
	if err := json.Unmarshal(sentinel.Data, &known); err != nil {
		return fmt.Errorf("what the relay left: %w", err)
	}
	conn, err := only(sentinel, host.UnixConn)
	if err != nil {
		return fmt.Errorf("what the relay left: %w", err)
	}
	p.sentinel, p.bound = conn, known.Socket
	p.guarded.resumed(sentinel.Entry(conn))
	p.state = state.State{InnerSock: known.InnerSock, InnerPID: known.InnerPID, RelaySock: known.RelaySock}
	p.paths = p.state.Paths()
	for name, to := range map[string]**listener{entryListener: &p.listener, entryControl: &p.controlAt} {
		e, ok := left[name]
		if !ok {
			continue
		}
		l, err := only(e, host.UnixListener)
		if err != nil {
			p.Log.Error("nobody can connect to this relay any more", "listener", name, "error", err)
			continue
		}
		*to = newListener(l)
		p.guarded.resumed(e.Entry(*to))
	}
	return nil
}

// only returns what as makes of the first file of an entry.
func only[T any](e guard.Received, as func(*os.File) (T, error)) (t T, err error) {
	if len(e.Files) == 0 {
		return t, fmt.Errorf("%q is not there", e.Name)
	}
	return as(e.Files[0])
}

// connections takes over those of a kind. One that cannot be relayed on ends.
func (p *Process) connections(kind string, entries []guard.Received) (all []connection) {
	for _, e := range entries {
		if k, _, _ := strings.Cut(e.Name, "/"); k != kind {
			continue
		}
		c, err := connectionOf(e)
		if err != nil {
			p.Log.Error("a connection ends with the relay that died", "error", err)
			p.guarded.resumed(e.Entry(filesOf(e)...))
			p.broken = append(p.broken, e.Name)
			continue
		}
		p.guarded.resumedConnection(e, c)
		all = append(all, c)
	}
	return all
}

// connectionOf makes a connection of an entry. If it fails the files are what they were.
func connectionOf(e guard.Received) (c connection, err error) {
	accepted := len(e.Files) == 1 && strings.HasPrefix(e.Name, entryConn+"/") // and no more
	if len(e.Files) != 3 && !accepted {
		return c, fmt.Errorf("%q has %d descriptors", e.Name, len(e.Files))
	}
	c.name = e.Name
	// A connection of package net has a descriptor of its own.
	if c.client, err = net.FileConn(e.Files[0]); err != nil {
		return c, fmt.Errorf("%s: %w", e.Name, err)
	}
	if accepted {
		e.Files[0].Close()
		return c, nil
	}
	if c.server, err = net.FileConn(e.Files[1]); err != nil {
		c.client.Close()
		return c, fmt.Errorf("%s: %w", e.Name, err)
	}
	if c.memory, err = handover.Open(e.Files[2]); err != nil {
		c.client.Close()
		c.server.Close()
		return c, fmt.Errorf("%s: %w", e.Name, err)
	}
	e.Files[0].Close()
	e.Files[1].Close()
	return c, nil
}

// others returns what is neither a connection that is relayed nor the process's own.
func (p *Process) others(entries []guard.Received) (all []guard.Received) {
	for _, e := range entries {
		switch kind, _, numbered := strings.Cut(e.Name, "/"); {
		case !numbered, kind == entryConn, kind == kata.EntryRequest:
		default:
			p.guarded.resumed(e.Entry(filesOf(e)...))
			all = append(all, e)
		}
	}
	return all
}

// resumers returns, for each connection, a function that has a relay go on with it. Only
// the function's first call does so: two relays at once would each take a part of the
// bytes.
func (p *Process) resumers(connections []connection) (all []func(*middleware.Relay)) {
	for _, c := range connections {
		var once sync.Once
		all = append(all, func(relay *middleware.Relay) { once.Do(func() { p.resume(relay, c) }) })
	}
	return all
}

// giveBack lets go of what only a process with a kata.Observer could use.
func (p *Process) giveBack(left kata.Left) {
	p.turning = kata.GiveBack(&p.guarded, left, p.Config.Agent, p.Who, func(err error) {
		p.Log.Warn("requests to the agent may not arrive", "error", err)
	})
}

func filesOf(e guard.Received) (all []syscall.Conn) {
	for _, f := range e.Files {
		all = append(all, f)
	}
	return all
}

// remember reads what the relay knew.
func (p *Process) remember(e guard.Received) (was saved, err error) {
	m, err := only(e, mapMemory)
	if err != nil {
		return was, err
	}
	p.memory = m
	p.guarded.resumed(e.Entry(m.file))
	text, err := m.read()
	if err != nil {
		return was, err
	}
	return was, was.read(text)
}

// tryGoOn calls goOn. Not even a panic there keeps the bytes from flowing. But if work for
// a Kata sandbox has begun before the panic, that work could take connections and sockets
// that are to be given back. Then this process ends, the guard starts another one, and the
// third attempt relays nothing but bytes.
func (p *Process) tryGoOn(was saved, left kata.Left) (err error) {
	defer func() {
		switch v := recover(); {
		case v == nil:
		case p.kata != nil:
			panic(v)
		default:
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return p.goOn(was, left)
}

// goOn has the process know what the other one knew.
func (p *Process) goOn(was saved, left kata.Left) error {
	if st := was.Sandbox.State; st.InnerSock != p.state.InnerSock || st.RelaySock != p.state.RelaySock {
		return errors.New("what the relay saved is of another sandbox")
	}
	p.state, p.Who, p.Container, p.resumed = was.Sandbox.State, was.Who, was.Container, was.Resumed+1
	p.Who.Run = telemetry.RunOf(p.state.Trace.SpanContext(), p.state.Cause.SpanContext())
	p.memory.lose()
	p.lost, p.lostHeld = p.memory.uncounted(losses.Ours).Load(), p.memory.uncounted(losses.Agents).Load()
	tel, err := telemetry.Open(p.Config, p.Who, p.Log, p.memory.waiting())
	if err != nil {
		return err
	}
	p.tell(tel)
	p.kata = kata.New(kata.Options{Config: p.Config, Who: p.Who, Container: p.Container, Telemetry: tel, Log: p.Log, Guard: &p.guarded, Left: left, Held: p.memory.held()})
	p.useProcessors(processors.Begin())
	p.know(was)
	p.beginSaving()
	return nil
}

// told tells of what was not seen, in the trace and in the journal.
func (p *Process) told(got *guard.Resumption) {
	p.count(losses.Ours, p.lost)
	p.count(losses.Agents, p.lostHeld)
	p.Log.Warn("this relay goes on for another one", "cause", got.Cause, "process", got.PID, "pause", time.Since(got.At).Round(time.Millisecond), "spans lost", p.lost+p.lostHeld)
	if !p.sandbox.On() {
		return
	}
	attrs := trace.WithAttributes(resumeCauseKey.String(string(got.Cause)), resumeLostKey.Int64(p.lost+p.lostHeld))
	_, span := p.tel.Tracer.Start(telemetry.Remote(p.sandbox.Root()), names.RelayResumed, trace.WithTimestamp(got.At), attrs)
	now := time.Now()
	span.AddEvent(names.RelayResumed, trace.WithTimestamp(now), attrs)
	span.End(trace.WithTimestamp(now))
	// It is to be there also if this process ends as soon as the last one.
	p.sandbox.exports.Go(func() { _ = p.sandbox.flush() })
}

// count counts spans that were lost with another process. They stay uncounted in the memory
// until the journal has the count: this process may end as soon as that one.
func (p *Process) count(whose losses.Whose, spans int64) {
	if spans == 0 {
		return
	}
	p.tel.Journal.Losses(whose).Add(losses.RelayDied, int(spans))
	p.sandbox.exports.Go(func() {
		var err error
		if state.Within(telemetry.FlushTime, func() { err = p.tel.Journal.Flush() }) && err == nil {
			p.memory.uncounted(whose).Add(-spans)
		}
	})
}

// died counts calls whose state another process had, and this one has not.
func (p *Process) died(calls int) {
	if p.memory == nil || p.sandbox == nil {
		return // nothing is recorded here
	}
	p.memory.uncounted(losses.Ours).Add(int64(calls))
	p.count(losses.Ours, int64(calls))
}
