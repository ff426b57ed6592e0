package faults_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestManyCalls relays a million calls: what the relay has of memory, descriptors and
// threads afterwards is what it had after the first few thousand, and it has as
// many goroutines as one that has done little.
func TestManyCalls(t *testing.T) {
	calls := 1_000_000
	if !faults.All() {
		calls = 50_000
	}
	s := start(t, traced.Options{})
	l := faults.Start(t, s.Install, faults.Options{Pods: 2, Execs: 1, Lives: 1, Echo: true})
	l.Stop()
	relay, idler := s.relayOf("pod0"), s.relayOf("pod1")
	idle := usageOf(t, relay).descriptors
	hammered := func(calls int) usage {
		l.Hammer(calls)
		until(t, "the connections to be closed", func() bool { return usageOf(t, relay).descriptors <= idle })
		return usageOf(t, relay)
	}
	before := hammered(calls / 20)
	after := hammered(calls - calls/20)
	t.Logf("after %d calls %+v, after %d %+v", calls/20, before, calls, after)
	const slack = 2 << 20
	until(t, "the relay to have given the garbage of the calls back", func() bool {
		return usageOf(t, relay).anonymous <= before.anonymous+slack
	})
	if after.threads > before.threads+2 {
		t.Errorf("after %d calls %+v, after %d %+v", calls/20, before, calls, after)
	}
	if busy, quiet := s.goroutines(relay), s.goroutines(idler); busy > quiet+4 {
		t.Errorf("%d goroutines after %d calls, %d after a few", busy, calls, quiet)
	}
	row := s.finish(l)
	if row.CallsFailed > 0 || len(row.Lost) > 0 {
		t.Errorf("%d calls failed, spans lost %v", row.CallsFailed, row.Lost)
	}
	if faults.All() {
		reliability.Row(t, reliability.Fault{Area: area, Fault: "a million calls on 16 connections: memory, descriptors and threads as at the beginning", Load: row})
	}
}

// relayOf returns the relay of a container.
func (s *site) relayOf(container string) (pid int) {
	for _, p := range traced.Find(s.Rig, traced.Relay) {
		if slices.Contains(p.Args, container) {
			pid = p.PID
		}
	}
	return pid
}

// lastRegister is the end of what a program of Go says then: of x86-64, or of ARM.
var lastRegister = regexp.MustCompile(`(?m)^(gs|fault) +0x[0-9a-f]+$`)

var goroutine = regexp.MustCompile(`(?m)^.*goroutine \d+ [^\n]*\[`)

// goroutines counts a relay's goroutines, which it tells as it ends (SIGQUIT). Another
// one goes on for it.
func (s *site) goroutines(pid int) int {
	s.Helper()
	logged := len(s.Rig.Log())
	check(s.T, unix.Kill(pid, unix.SIGQUIT))
	until(s.T, "the relay to say what it did", func() bool { return unix.Kill(pid, 0) != nil })
	said := ""
	until(s.T, "its last words to be in the log", func() bool {
		said = s.Rig.Log()[logged:]
		return lastRegister.MatchString(said)
	})
	n := len(goroutine.FindAllString(said, -1))
	s.Logf("relay %d had %d goroutines", pid, n)
	return n
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
