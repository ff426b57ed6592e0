package faults_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func TestMain(m *testing.M) {
	code := m.Run()
	traced.Clean()
	os.Exit(code)
}

var check = testkit.Check

// selected leaves all but the first of several faults of one kind to make test-faults.
func selected(t *testing.T, i int) {
	t.Helper()
	if i > 0 && !faults.All() {
		t.Skip("runs in make test-faults")
	}
}

var until = testkit.Until

// collectorAddr is the collector's address in a rig's network.
const collectorAddr = "127.0.0.1:4318"

// A site is a rig with shimtrace, what shims need to echo, and a collector.
type site struct {
	*testing.T
	*traced.Install
	recv *otlprecv.Receiver
}

// start starts one. Config of the options begins with keys of [journal]; export has
// further keys of [export].
func start(t *testing.T, opts traced.Options, export ...string) *site {
	t.Helper()
	s := prepare(t, opts, "http://"+collectorAddr, export...)
	s.listen()
	return s
}

// prepare is start without a collector.
func prepare(t *testing.T, opts traced.Options, endpoint string, export ...string) *site {
	t.Helper()
	shipper, err := traced.ImpatientShipper(t.TempDir())
	check(t, err)
	opts.Config += "\n[export]\nendpoint = '" + endpoint + "'\nshipper = '" + shipper + "'\n" + strings.Join(export, "\n") +
		"\n[runtime.echo.trace]\nquiet = ['Echo', 'Slow', 'State']\n"
	opts.Path = append(slices.Clone(opts.Path), faults.EchoPath(t))
	return &site{T: t, Install: traced.Start(t, opts)}
}

// listen brings the collector up.
func (s *site) listen() {
	s.Helper()
	recv, err := otlprecv.Listen(otlprecv.Options{NetNS: s.Rig.NetNS(), HTTPAddr: collectorAddr})
	check(s.T, err)
	s.recv = recv
	s.endWith(recv)
}

// endWith closes a receiver once nobody ships to it any more.
func (s *site) endWith(recv *otlprecv.Receiver) {
	s.Cleanup(func() {
		// A shipper that misses an answer would wait for the collector to come back.
		until(s.T, "the shipper to end", func() bool { return len(traced.Find(s.Rig, traced.Collect)) == 0 })
		recv.Close()
	})
}

// finish ends a load, waits until all that is recorded has been delivered, and holds it
// against what was expected.
func (s *site) finish(l *faults.Load) *reliability.Load {
	s.Helper()
	lost := l.End()
	until(s.T, "the shims to end", func() bool {
		l.ClearForgotten()
		return traced.ShimsEnded(s.Rig)
	})
	row := faults.Account(s.T, l, lost, nil)
	if s.recv != nil {
		until(s.T, "all spans to be delivered", func() bool {
			row.Delivered, row.Duplicated = faults.Delivered(s.recv)
			return row.Delivered >= row.Recorded
		})
	}
	return row
}

// work waits until a load has done so much more, and fails if it comes to a halt.
func work(t *testing.T, l *faults.Load, more int64) {
	t.Helper()
	target := l.Ops() + more
	until(t, "the load to go on", func() bool { return l.Ops() >= target })
}

func processes(s *site, kind traced.Kind) (pids []int) {
	for _, p := range traced.Find(s.Rig, kind) {
		pids = append(pids, p.PID)
	}
	return pids
}

// podsRelays returns the relays of the containers that live through it all.
func (s *site) podsRelays() (pids []int) {
	for _, p := range traced.Find(s.Rig, traced.Relay) {
		if slices.ContainsFunc(p.Args, func(a string) bool { return strings.HasPrefix(a, "pod") || a == "echo" }) {
			pids = append(pids, p.PID)
		}
	}
	slices.Sort(pids)
	return pids
}
