package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/internal/guard"
)

// A Killer ends processes of a rig by SIGKILL, at random moments.
//
// It kills what another process can go on for: relays that are registered with the
// guard, and the guard while all relays live that it has. A relay and the guard at once
// is what nobody survives.
type Killer struct {
	rig    *rig.Rig
	Killed map[Kind]int
}

// NewKiller returns one that has killed nobody yet.
func NewKiller(r *rig.Rig) *Killer { return &Killer{rig: r, Killed: map[Kind]int{}} }

// killEvery is the mean time between two kills.
const killEvery = 80 * time.Millisecond

// Kill kills a process so many times, of the kinds in turn. It fails the test if none
// comes back that could be killed. What ships is started again after a growing pause when
// it dies again and again; where it is one of several kinds, and is not there, a relay
// is killed in its place.
func (k *Killer) Kill(t testing.TB, times int, kinds ...Kind) {
	t.Helper()
	for i := range times {
		time.Sleep(rand.N(2 * killEvery))
		kind := kinds[i%len(kinds)]
		if kind == Collect && len(kinds) > 1 {
			if k.one(kind) {
				continue
			}
			kind = Relay
		}
		for deadline := time.Now().Add(time.Minute); !k.one(kind); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after %v: no %s to kill\n%s", k.Killed, kind, k.Tell())
			}
		}
		if kind == Guard {
			k.awaitGuard(t)
		}
	}
}

// KillUntil kills relays, and now and then the guard, until ctx is done.
func (k *Killer) KillUntil(ctx context.Context, every time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(2 * every)):
			k.one(Relay)
		}
	}
}

// one kills a process of a kind; it reports whether there was one.
func (k *Killer) one(kind Kind) bool {
	pids := k.candidates(kind)
	if len(pids) == 0 {
		return false
	}
	if unix.Kill(pids[rand.IntN(len(pids))], unix.SIGKILL) != nil {
		return false // it has just ended
	}
	k.Killed[kind]++
	return true
}

func (k *Killer) candidates(kind Kind) (pids []int) {
	switch kind {
	case Collect:
		for _, p := range Find(k.rig, kind) {
			pids = append(pids, p.PID)
		}
		return pids
	}
	self, relays, err := k.ask()
	if err != nil {
		return nil
	}
	if kind == Guard {
		return []int{self.PID}
	}
	for _, r := range relays {
		if r.Guarded {
			pids = append(pids, r.PID)
		}
	}
	return pids
}

// ask asks the guard, whose sockets are in the rig's /run.
func (k *Killer) ask() (guard.Self, []guard.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return guard.Ask(ctx, filepath.Join(k.rig.Dir, "run/shimtrace"))
}

// awaitGuard waits until another guard has all the relays.
func (k *Killer) awaitGuard(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, relays, err := k.ask()
		registered := map[int]bool{}
		for _, r := range relays {
			registered[r.PID] = r.Guarded
		}
		all := err == nil
		for _, p := range Find(k.rig, Relay) {
			all = all && registered[p.PID]
		}
		if all {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the guard was killed, and a minute later not all relays are registered: %v\n%s", err, k.Tell())
		}
	}
}

// Resumed returns how often the relays that live were followed by another process.
func (k *Killer) Resumed() (n int) {
	_, relays, _ := k.ask()
	for _, r := range relays {
		n += r.Resumed
	}
	return n
}

// Tell says what there is.
func (k *Killer) Tell() string {
	self, relays, err := k.ask()
	return fmt.Sprintf("guard %+v, %v, relays registered %+v, living %v", self, err, relays, Find(k.rig, Relay))
}
