package relay

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// serveControl lets the operator's tool ask the relay, and switch the sandbox's tracing, at a
// listener that another process has left, if there is one. A relay that cannot be reached
// for that relays all the same.
func (p *Process) serveControl(l *listener) {
	if l == nil {
		var err error
		if l, err = listenUnix(p.paths.Control); err != nil {
			p.Log.Warn("the relay cannot be asked, and tracing not be switched", "error", err)
			return
		}
		p.guarded.Store(guard.Entry{Name: entryControl, Kind: guard.Listener, Files: []syscall.Conn{l}})
	}
	p.controls = control.Serve(l, p.control)
}

// control does what a client asks for.
func (p *Process) control(client net.Conn, req control.Request) control.Answer {
	s := p.sandbox
	by := telemetry.Turner{Name: "unknown", UID: -1}
	if conn, ok := client.(*net.UnixConn); ok {
		if cred, err := host.Peer(conn); err == nil {
			by.UID = int(cred.Uid)
		}
	}
	if req.By != "" {
		by.Name = strings.ToValidUTF8(req.By[:min(len(req.By), control.MaxBy)], "")
	}
	var changed bool
	err := s.switcher.refuses(req.Do)
	switch {
	case err != nil:
	case req.Do == control.DoOn && req.For < 0:
		err = fmt.Errorf("tracing cannot be on for %v", req.For)
	case req.Do == control.DoOn:
		changed, err = s.switcher.on(by, req.For)
	case req.Do == control.DoOff:
		changed = s.switcher.off(by)
	case req.Do != control.DoStatus:
		err = fmt.Errorf("the relay does not know how to do %q", req.Do)
	}
	a := p.answer()
	a.Changed = changed
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// answer says what is traced.
func (p *Process) answer() control.Answer {
	s := p.sandbox
	a := control.Answer{On: s.On(), Unrecorded: s.unrecorded.Load(), Facts: p.facts(), Configuration: p.configuration()}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	a.Sandbox, a.Namespace, a.Inner, a.Pod, a.PodNamespace = st.Sandbox, st.Namespace, st.Inner, st.Pod, st.PodNamespace
	if w := st.Window; w != nil {
		a.Window = &control.Window{TraceID: w.Trace.TraceID, Sampled: w.Trace.Sampled, Since: w.Began, Until: w.Until, Ended: w.Ended}
	}
	for id, ct := range s.containers {
		if ct.gone {
			continue
		}
		c := control.Container{ID: id}
		for _, kv := range ct.attrs {
			if kv.Key == semconv.ContainerNameKey {
				c.Name = kv.Value.AsString()
			}
		}
		a.Containers = append(a.Containers, c)
	}
	slices.SortFunc(a.Containers, func(x, y control.Container) int { return cmp.Compare(x.ID, y.ID) })
	return a
}
