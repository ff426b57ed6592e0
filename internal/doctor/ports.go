package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// ports checks who has the ports at which others hand their spans to shimtrace.
func ports(_ context.Context, s *site) (all []Finding) {
	if !s.live() || !s.hasKata() {
		return nil
	}
	if s.config.Jaeger.Receive != "off" {
		all = append(all, s.runtimePort())
	}
	if s.config.Agent.Receive != "off" {
		if f, ok := vsockPort(); ok {
			all = append(all, f)
		}
	}
	return all
}

// hasKata reports whether Kata is on this host.
func (s *site) hasKata() bool {
	if len(s.kata) > 0 {
		return true
	}
	for _, l := range s.links {
		if kata.IsShim(l.inner.File()) {
			return true
		}
	}
	return false
}

// runtimePort looks at the port to which Kata's runtimes post their spans.
func (s *site) runtimePort() Finding {
	f := Finding{Level: OK, What: "the port for runtimes' spans is free until a relay needs it", Where: s.config.Jaeger.Listen}
	at, err := netip.ParseAddrPort(s.config.Jaeger.Listen)
	if err != nil {
		return f // the configuration has been checked
	}
	holder, found, err := s.Proc.Holder(at)
	switch {
	case err != nil:
		f.Level, f.What = Note, "who has the port for runtimes' spans is not known: "+err.Error()
	case found && holder.Foreign():
		f.Level, f.What, f.Do = Error, fmt.Sprintf("%v has the port for runtimes' spans, and gets containers' environments", holder), "end it, or shimtrace install --uninstall --kata"
	case found && filepath.Base(holder.Program) != "shimtrace" && filepath.Base(holder.Program) != filepath.Base(s.Tool):
		f.Level, f.What, f.Do = Warning, fmt.Sprintf("%v has the port for runtimes' spans: they are not in the traces", holder), "end it, or set listen of [jaeger] to another port and run shimtrace install --kata; or receive = \"off\""
	case found:
		f.What = fmt.Sprintf("%v has the port for runtimes' spans", holder)
	case int(at.Port()) >= s.Proc.FirstUnprivilegedPort():
		f.Level, f.What, f.Do = Warning, "every user may open the port for runtimes' spans while shimtrace does not run, and gets containers' environments", "set listen of [jaeger] to a port below 1024, and run shimtrace install --kata"
	}
	return f
}

// vsockPort checks whether the agents' port could be opened; false if there is no VSOCK.
// Nothing listens meanwhile, so no agent connects to shimtrace.
func vsockPort() (Finding, bool) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Finding{}, false
	}
	defer unix.Close(fd)
	where := fmt.Sprintf("VSOCK port %d", kata.SpanPort)
	err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: kata.SpanPort})
	if errors.Is(err, unix.EADDRINUSE) {
		return Finding{Level: Note, What: "the port for agents' spans is in use: by the guard while relays of Kata run, or by shimtrace forward or Kata's trace-forwarder", Where: where, Do: "if no relay runs, end what has it: ss --vsock -lp"}, true
	}
	return Finding{Level: OK, What: "the port for agents' spans is free until a relay needs it", Where: where}, err == nil
}
