package faults_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestManyCalls relays a million calls: what the relay has of memory, descriptors and
// threads afterwards is what it had after the first few thousand, and so are its
// goroutines, as far as each costs memory.
func TestManyCalls(t *testing.T) {
	calls := 1_000_000
	if !faults.All() {
		calls = 50_000
	}
	s := start(t, traced.Options{})
	l := faults.Start(t, s.Install, faults.Options{Pods: 1, Execs: 1, Lives: 1, Echo: true})
	l.Stop()
	relay := s.podsRelays()[0]
	idle := usageOf(t, relay).descriptors
	hammered := func(calls int) usage {
		l.Hammer(calls)
		until(t, "the connections to be closed", func() bool { return usageOf(t, relay).descriptors <= idle })
		return usageOf(t, relay)
	}
	before := hammered(calls / 20)
	after := hammered(calls - calls/20)
	t.Logf("after %d calls %+v, after %d %+v", calls/20, before, calls, after)
	const slack = 2 << 20 // the garbage of the moment
	if after.anonymous > before.anonymous+slack || after.threads > before.threads+2 {
		t.Errorf("after %d calls %+v, after %d %+v", calls/20, before, calls, after)
	}
	row := s.finish(l)
	if row.CallsFailed > 0 || len(row.Lost) > 0 {
		t.Errorf("%d calls failed, spans lost %v", row.CallsFailed, row.Lost)
	}
	if faults.All() {
		reliability.Row(t, reliability.Fault{Area: area, Fault: "a million calls on 16 connections: memory, descriptors and threads as at the beginning", Load: row})
	}
}

// A usage is what a process has.
type usage struct {
	anonymous            int // bytes
	descriptors, threads int
}

func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	number := func(key string) int {
		_, rest, _ := strings.Cut(string(text), "\n"+key+":")
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		check(t, err)
		return n
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	check(t, err)
	return usage{anonymous: number("RssAnon") << 10, descriptors: len(entries), threads: number("Threads")}
}
