// Package agentconfig turns what the configuration says of agents' spans, and what is
// known of the requests to agents, into the options of those who receive and relay them.
//
// It decides nothing and opens nothing. The relay and the standalone forwarder use
// it, so that one file means the same to both.
package agentconfig

import (
	"maps"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// Limits returns the limits of [agent.limits] on what a guest may send, and the
// attributes that are kept.
func Limits(cfg config.Agent) forwarder.Limits {
	l := cfg.Limits
	return forwarder.Limits{
		Wire:           agent.Options{MaxFrame: int(l.FrameBytes), Options: span.Options{MaxValue: int(l.ValueBytes), Keep: cfg.Keep}},
		SpansPerSecond: l.SpansPerSecond,
		SpanBurst:      l.SpanBurst,
		BytesPerSecond: int(l.BytesPerSecond),
		ByteBurst:      int(l.ByteBurst),
		QueuedSpans:    l.QueuedSpans,
		QueuedBytes:    int(l.QueuedBytes),
		MaxConnections: l.Connections,
	}
}

// Isolated returns how spans that are in traces of their own get their place: which are
// quiet, and how many wait for how long.
func Isolated(cfg config.Config) collate.Options {
	rules := Rules(cfg)
	return collate.Options{
		Options: calls.Options{
			Isolated:   true,
			Quiet:      rules.Quiet,
			Slow:       rules.Slow,
			QuietSpans: rules.QuietSpans,
		},
		Hold:     time.Duration(cfg.Agent.Limits.Hold),
		MaxSpans: cfg.Agent.Limits.HeldSpans,
		MaxBytes: int(cfg.Agent.Limits.HeldBytes),
	}
}

// Rules returns which of the spans are quiet.
func Rules(cfg config.Config) calls.Rules {
	return calls.Rules{Quiet: cfg.Trace.Quiet, Slow: time.Duration(cfg.Trace.Slow), QuietSpans: quietSpans(cfg)}
}

// QuietRequests returns the requests to the agent that are quiet: those that are
// configured to be, and those that only quiet calls cause.
func QuietRequests(cfg config.Config) []string {
	return append(calls.QuietRequests(cfg.Trace.Quiet), cfg.Agent.Quiet...)
}

// quietSpans returns the names of quiet spans: those that the Go runtime gives to quiet
// requests, and those that are configured.
func quietSpans(cfg config.Config) []string {
	names := slices.Clone(cfg.Jaeger.Quiet)
	for _, request := range QuietRequests(cfg) {
		names = append(names, kata.RequestPrefix+request)
	}
	return names
}

// Sockets returns where VMMs have their hybrid VSOCK sockets: as configured, else
// where they are known to be.
func Sockets(cfg config.Agent) []listen.Pattern {
	if len(cfg.Sockets) == 0 {
		return append(listen.DefaultPatterns(), listen.RootlessPatterns()...)
	}
	var all []listen.Pattern
	for _, vmm := range slices.Sorted(maps.Keys(cfg.Sockets)) {
		all = append(all, listen.Pattern{VMM: vmm, Path: cfg.Sockets[vmm]})
	}
	return all
}
