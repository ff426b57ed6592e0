package traced_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// The collector's addresses, in a rig's network namespace.
const (
	httpAddr = "127.0.0.1:4318"
	grpcAddr = "127.0.0.1:4317"
)

// collected is shimtrace in a rig with a collector that it ships to.
type collected struct {
	*testing.T
	*traced.Install
	recv *otlprecv.Receiver
}

// collect starts a rig with a collector. That shims know of it is up to the options:
// to their environment, or to Config, whose last section then is [export].
func collect(t *testing.T, opts traced.Options) *collected {
	t.Helper()
	c := uncollected(t, opts)
	c.listen()
	return c
}

// uncollected is collect with a collector that is down.
func uncollected(t *testing.T, opts traced.Options) *collected {
	t.Helper()
	if !strings.Contains(opts.Config, "[export]") {
		opts.Config += "\n[export]\n"
	}
	shipper, err := traced.ImpatientShipper(t.TempDir())
	check(t, err)
	opts.Config += "\nshipper = '" + shipper + "'\n"
	return &collected{T: t, Install: traced.Start(t, opts)}
}

// listen brings the collector up.
func (c *collected) listen() {
	c.Helper()
	recv, err := otlprecv.Listen(otlprecv.Options{NetNS: c.Rig.NetNS(), HTTPAddr: httpAddr, GRPCAddr: grpcAddr})
	check(c.T, err)
	c.recv = recv
	c.Cleanup(func() {
		// A shipper that misses an answer would wait for the collector to come back.
		until(c.T, "the shipper to end", func() bool { return len(c.shippers()) == 0 })
		recv.Close()
	})
}

// shippers are the processes that ship the journal.
func (c *collected) shippers() (found []rig.Process) {
	for _, p := range c.Rig.Processes() {
		if filepath.Base(p.Args[0]) == "shimtrace" {
			found = append(found, p)
		}
	}
	return found
}

// settled returns what the journal holds of a shimtrace whose containers are all
// gone, once that is all there will be.
func settled(t *testing.T, in *traced.Install) []otlprecv.Span {
	t.Helper()
	until(t, "the shims to end", func() bool { return len(in.Rig.Shims()) == 0 })
	spans, err := in.Spans()
	check(t, err)
	return spans
}

// arrived returns what the collector has, once that is all that the journal holds.
// What others send to it is there too.
func (c *collected) arrived() []otlprecv.Span {
	c.Helper()
	want := ids(settled(c.T, c.Install))
	var missing []string
	spans, err := c.recv.Wait(time.Minute, func(spans []otlprecv.Span) bool {
		have := ids(spans)
		missing = slices.DeleteFunc(slices.Clone(want), func(id string) bool { return slices.Contains(have, id) })
		return len(missing) == 0
	})
	if err != nil {
		c.Fatalf("%d of %d spans of the journal have not arrived: %v", len(missing), len(want), err)
	}
	return spans
}

// complete is arrived, with the parents of all spans, whoever made them.
func (c *collected) complete() []otlprecv.Span {
	c.Helper()
	c.arrived()
	spans, err := c.recv.Wait(time.Minute, func(spans []otlprecv.Span) bool {
		known := make(map[string]bool)
		for _, s := range spans {
			known[s.ID] = true
		}
		return !slices.ContainsFunc(spans, func(s otlprecv.Span) bool { return s.ParentID != "" && !known[s.ParentID] })
	})
	if err != nil {
		c.Fatalf("parents have not arrived: %v", err)
	}
	return spans
}

func ids(spans []otlprecv.Span) []string {
	list := make([]string, len(spans))
	for i, s := range spans {
		list[i] = s.TraceID + s.ID
	}
	return list
}
