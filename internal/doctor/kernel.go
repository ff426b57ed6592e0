package doctor

import (
	"context"
	"fmt"
	"os"
)

// kernel looks at what the kernel lets shimtrace see. Without any of it tracing works, and shows
// less.
func kernel(_ context.Context, s *site) (all []Finding) {
	if !s.live() {
		return nil
	}
	if os.Geteuid() != 0 {
		return []Finding{{Level: Note, What: "only root can look at it", Do: "run this as root"}}
	}
	for _, f := range []struct {
		probe       func() error
		is, without string
		do          string
	}{
		{probePressure, "pressure stall information", "what the host suffered from is not in the traces", "boot with psi=1, on a kernel with CONFIG_PSI"},
		{probeProcessEvents, "process events", "the helpers that the inner shim runs have no spans", "use a kernel with CONFIG_PROC_EVENTS, and the host's own namespaces"},
		{probeSockets, "inet_diag and tcp_diag", "finding who posted a runtime's span takes some ten milliseconds for each connection", "modprobe tcp_diag"},
	} {
		if err := f.probe(); err != nil {
			all = append(all, Finding{Level: Note, What: fmt.Sprintf("no %s (%v): %s", f.is, err, f.without), Do: f.do})
			continue
		}
		all = append(all, Finding{Level: OK, What: f.is + " work"})
	}
	return all
}

// probePressure reads a file of the kernel's pressure stall information.
func probePressure() error {
	_, err := os.ReadFile("/proc/pressure/cpu")
	return err
}
