package shim

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/relay"
)

// relay is the life of a process that spawnRelay has started.
func (c command) relay(cfg config.Config, inner string, log *slog.Logger) int {
	c.becomeProcess()
	start, err := host.UnixConn(os.NewFile(handoverFD, "handover"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "relay is run by start, not by hand:", err)
		return 2
	}
	defer start.Close()
	var p *relay.Process
	if c.action == actionRelay {
		p, err = relay.Prepare(relay.Options{Config: cfg, Who: c.identity(inner), Container: c.id, Log: log, Guard: c.guarded(cfg, log)})
	}
	var a assignment
	if derr := json.NewDecoder(start).Decode(&a); derr != nil {
		return 0 // not needed after all
	}
	if a.Record != nil {
		err = a.Record.make(cfg, log)
		_ = json.NewEncoder(start).Encode(reportOf(err)) // who asked may not have waited
		return 0
	}
	var r report
	if err == nil {
		st, terr := p.Take(a.InnerSock, a.Started)
		r.State, err = &st, terr
	}
	if err != nil {
		_ = json.NewEncoder(start).Encode(reportOf(err))
		return 1
	}
	p.Serve()
	if err := json.NewEncoder(start).Encode(r); err != nil {
		log.Error("relay hand-over", "error", err)
		if p.Abandoned() {
			return 1
		}
	}
	start.Close()
	p.Run()
	return 0
}
