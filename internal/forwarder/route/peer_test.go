package route

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestProcessTells: the process at the other end identifies a post that names no sandbox,
// whether its relay has named the process before or after.
func TestProcessTells(t *testing.T) {
	e := newEndpoint(t)
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	shimA, shimB := e.startRuntime(t), e.startRuntime(t)
	a := h.sandbox(t, "a", shimA.pid)
	b := h.sandbox(t, "b")
	for _, shim := range []runtime{shimA, shimB} {
		h.arrived(t, shim.at, e.at)
	}
	h.Take(shimA.at, "kata", spans(1, "x"))
	h.Take(shimB.at, "kata", spans(2, "v"))
	a.same(t, "x")
	b.same(t)
	b.Processes(named(t, []int{shimB.pid})...)
	b.same(t, "v")
	// Once a connection is closed, what it brought may still have to be taken.
	h.ended(shimB.at)
	h.Take(shimB.at, "kata", spans(3, "w"))
	b.same(t, "v", "w")
	h.lostNothing(t)
}

// TestProcessOverrulesClaims: whatever a runtime says, its spans are its sandbox's.
func TestProcessOverrulesClaims(t *testing.T) {
	e := newEndpoint(t)
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	honest, liar := e.startRuntime(t), e.startRuntime(t)
	a := h.sandbox(t, "aaaaaaaa-1", honest.pid)
	b := h.sandbox(t, "bbbbbbbb-1", liar.pid)
	h.arrived(t, honest.at, e.at)
	h.arrived(t, liar.at, e.at)
	h.Take(liar.at, "kata", of("aaaaaaaa-1", spans(1, "claims the trace first")))
	h.Take(honest.at, "kata", spans(1, "x"))
	h.Take(honest.at, "kata", spans(2, "y"))
	h.Take(liar.at, "kata-sb-aaaaaaaa", spans(3, "by service"))
	h.Take(liar.at, "kata", of("aaaaaaaa-1", spans(4, "by id")))
	h.Take(liar.at, "kata", spans(2, "by trace"))
	// A process that no relay has named is judged by its posts alone.
	h.Take(nowhere, "kata", spans(2, "z"))
	a.same(t, "x", "y", "z")
	b.same(t, "claims the trace first", "by service", "by id", "by trace")
	h.lostNothing(t)
}

// TestSaidThenProven: a trace that another process claimed goes to its own sandbox as
// soon as that one's process is known.
func TestSaidThenProven(t *testing.T) {
	e := newEndpoint(t)
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	shim := e.startRuntime(t)
	a, b := h.sandbox(t, "a", shim.pid), h.sandbox(t, "b")
	h.arrived(t, shim.at, e.at)
	h.Take(nowhere, "kata", of("b", spans(1, "said")))
	h.Take(shim.at, "kata", spans(1, "proven"))
	h.Take(nowhere, "kata", spans(1, "follows"))
	b.same(t, "said")
	a.same(t, "proven", "follows")
}

// TestStrangers: other users' processes, closed connections and unidentified ones are not
// admitted, whichever way the kernel answers.
func TestStrangers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("root is needed, to act as another user")
	}
	for name, diagnose := range map[string]func(from, to netip.AddrPort) (socket, error){"asked for": nil, "no module": noDiag} {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t)
			h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour, diagnose: diagnose})
			gone, ours := e.startRuntime(t), e.startRuntime(t)
			gone.kill()
			eventually(t, "the kernel has forgotten it", func() bool {
				return h.sockets.find([]netip.AddrPort{gone.at}, e.at)[0].err != nil
			})
			foreign := e.connectAs(t, 65534)
			for at, want := range map[netip.AddrPort]bool{gone.at: false, foreign: false, ours.at: true} {
				if got := h.judge(h.sockets.find([]netip.AddrPort{at}, e.at)[0], nil); got != want {
					t.Errorf("%s is listened to: %t, want %t", at, got, want)
				}
			}
			if s := h.Snapshot(); len(s.Lost) > 0 || s.Turned[turnedStranger] != 1 || s.Turned[turnedGone] != 1 {
				t.Errorf("%+v", s)
			}
			blind := startHost(t, t.TempDir(), RouterOptions{diagnose: noDiag, proc: host.Proc(t.TempDir())})
			if blind.judge(blind.sockets.find([]netip.AddrPort{ours.at}, e.at)[0], nil) {
				t.Error("somebody is listened to of whom nothing is known")
			}
			if s := blind.Snapshot(); s.Lost[losses.Unchecked] != 1 || int(blind.drops.Of(losses.Unchecked)) != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestPidOfAnother: a process that got a runtime's pid later is not the runtime.
func TestPidOfAnother(t *testing.T) {
	e := newEndpoint(t)
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	first, later := e.startRuntime(t), e.startRuntime(t)
	h.sandbox(t, "a", first.pid)
	first.kill()
	h.mu.Lock()
	// As if the kernel had given the pid away.
	h.Router.sandbox["a"][0].processes[0].pid = later.pid
	h.mu.Unlock()
	shim := later // with the pid that was the relay's runtime's
	h.arrived(t, shim.at, e.at)
	h.Take(shim.at, "kata", spans(1, "x"))
	if n := h.Snapshot().Held; n != 1 {
		t.Errorf("%d spans are held, want 1", n)
	}
}

// TestPidGivenAwayBefore: nor is one that got it before the endpoint heard of it.
func TestPidGivenAwayBefore(t *testing.T) {
	e := newEndpoint(t)
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	later := e.startRuntime(t)
	a := h.sandbox(t, "a")
	runtime := named(t, []int{later.pid})[0]
	runtime.Start--
	a.Processes(runtime)
	h.arrived(t, later.at, e.at)
	h.Take(later.at, "kata", spans(1, "x"))
	if n := h.Snapshot().Held; n != 1 {
		t.Errorf("%d spans are held, want 1", n)
	}
	// The claim has been read: what is said after it has its effect.
	runtime.Start++
	a.Processes(runtime)
	a.same(t, "x")
}

// TestOrderWhenProcessIsNamed: what is held of a runtime goes before what it posts
// just when its process becomes known.
func TestOrderWhenProcessIsNamed(t *testing.T) {
	e := newEndpoint(t)
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	shim := e.startRuntime(t)
	a := h.sandbox(t, "a")
	h.arrived(t, shim.at, e.at)
	h.Take(shim.at, "kata", spans(1, "x"))
	h.Take(shim.at, "kata", spans(2, "y"))
	// As lookAgain does, before what is held is looked at again.
	h.mu.Lock()
	h.peers[shim.at].owner = h.Router.sandbox["a"][0]
	h.mu.Unlock()
	h.Take(shim.at, "kata", spans(3, "z"))
	a.same(t, "x", "y", "z")
	h.lostNothing(t)
}
