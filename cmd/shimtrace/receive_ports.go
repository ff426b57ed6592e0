package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
)

// configuredListen returns a function that says which address the configuration has for
// the endpoint now. It reads the file only when it is another than before.
func (h *host) configuredListen(now string) func() string {
	path, _ := config.Path(h.getenv)
	last, _ := os.Stat(path)
	return func() string {
		st, err := os.Stat(path)
		if err != nil || last != nil && st.ModTime().Equal(last.ModTime()) && st.Size() == last.Size() {
			return now
		}
		last = st
		if cfg, report := config.Load("", h.getenv); report.Err() == nil {
			now = cfg.Jaeger.Listen
		}
		return now
	}
}

// followPorts opens the port that the configuration comes to name, beside those that are
// open, until ctx is done: this process lives for as long as there are relays, and pods
// that start from now on are told of the new one.
func (r *reception) followPorts(ctx context.Context, configured func() string, serve func(net.Listener)) {
	open := map[string]bool{r.port.Addr().String(): true}
	ticker := time.NewTicker(plainInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		at := configured()
		if open[at] {
			continue
		}
		port, err := route.Open(at)
		if err != nil {
			r.report.warn(fmt.Errorf("the endpoint's new address: %w", err))
			continue
		}
		guarded, err := r.router.Guard(port)
		if err != nil {
			port.Close()
			r.report.warn(err)
			continue
		}
		open[at] = true
		r.report.info("runtimes may post to http://%s%s, too", at, endpoint.Path)
		serve(guarded)
	}
}
