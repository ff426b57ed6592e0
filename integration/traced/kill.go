package traced

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
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
	log    []string
}

// NewKiller returns one that has killed nobody yet.
func NewKiller(r *rig.Rig) *Killer { return &Killer{rig: r, Killed: map[Kind]int{}} }

// killEvery is the mean time between two kills.
const killEvery = 80 * time.Millisecond

// Kill kills a process so many times, of the kinds in turn. It fails the test if none
// comes back that could be killed. What ships is started again after a growing pause when
// it dies again and again; where it is one of several kinds, and is not there, a relay
// is killed in its place.
func (k *Killer) Kill(t rig.TB, times int, kinds ...Kind) {
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

// killEnv makes Start kill relays, and now and then the guard, as long as the test
// lasts: a mean time between two kills, such as 200ms.
const killEnv = "SHIMTRACE_KILL"

// Killing reports whether processes are killed under each test. Then pods, calls and
// answers are as ever, and spans may be lost.
func Killing() bool { return os.Getenv(killEnv) != "" }

// killUnder kills until the test ends, if killEnv says so.
func killUnder(t rig.TB, r *rig.Rig) {
	if !Killing() {
		return
	}
	every, err := time.ParseDuration(os.Getenv(killEnv))
	if err != nil {
		t.Fatalf("%s: %v", killEnv, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	k := NewKiller(r)
	go func() {
		defer close(done)
		for i := 1; ctx.Err() == nil; i++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(rand.N(2 * every)):
			}
			if i%5 == 0 && k.one(Guard) {
				for ctx.Err() == nil && k.unguarded() != nil {
					time.Sleep(5 * time.Millisecond)
				}
				continue
			}
			k.one(Relay)
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
		t.Logf("killed %v", k.Killed)
		k.clear()
	})
}

// clear removes the sockets of a guard that was killed when no relay was left to start
// another one. It waits for those that are.
func (k *Killer) clear() {
	for range 1000 {
		if len(Find(k.rig, Relay)) == 0 || k.unguarded() == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if len(Find(k.rig, Guard)) > 0 {
		return
	}
	sockets, _ := filepath.Glob(filepath.Join(k.rig.Dir, "run/shimtrace/guard.*"))
	for _, path := range sockets {
		_ = os.Remove(path)
	}
}

// one kills a process of a kind; it reports whether there was one.
func (k *Killer) one(kind Kind) bool {
	pids := k.candidates(kind)
	if len(pids) == 0 {
		return false
	}
	pid := pids[rand.IntN(len(pids))]
	args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if unix.Kill(pid, unix.SIGKILL) != nil {
		return false // it has just ended
	}
	k.Killed[kind]++
	k.log = append(k.log, fmt.Sprintf("%s killed %s %d %s", time.Now().UTC().Format("15:04:05.000"), kind, pid, strings.ReplaceAll(string(args), "\x00", " ")))
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
	living := map[int]bool{}
	for _, p := range Find(k.rig, Relay) {
		living[p.PID] = true
	}
	for _, r := range relays {
		switch {
		case r.Guarded && living[r.PID]:
			pids = append(pids, r.PID)
		case kind == Guard:
			return nil // it is about to have another one go on for this one
		}
	}
	if kind == Guard {
		return []int{self.PID}
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
func (k *Killer) awaitGuard(t rig.TB) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := k.unguarded()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a minute after the guard was killed: %v\n%s", err, k.Tell())
		}
	}
}

// unguarded is nil if all relays that live are registered.
func (k *Killer) unguarded() error {
	living := Find(k.rig, Relay) // before the guard is asked: one that comes later does not count
	_, relays, err := k.ask()
	if err != nil {
		return err
	}
	guarded := map[int]bool{}
	for _, r := range relays {
		guarded[r.PID] = r.Guarded
	}
	for _, p := range living {
		if !guarded[p.PID] && unix.Kill(p.PID, 0) == nil {
			return fmt.Errorf("relay %d is not registered", p.PID)
		}
	}
	return nil
}

// Resumed returns how often the relays that live were followed by another process.
func (k *Killer) Resumed() (n int) {
	_, relays, _ := k.ask()
	for _, r := range relays {
		n += r.Resumed
	}
	return n
}

// Tell says who was killed, what the guard has logged, and what there is.
func (k *Killer) Tell() string {
	self, relays, err := k.ask()
	log, _ := os.ReadFile(filepath.Join(k.rig.Dir, "run/shimtrace/guard.log"))
	return fmt.Sprintf("%s\nthe guard's log:\n%s\nguard %+v, %v, relays registered %+v, living %v",
		strings.Join(k.log, "\n"), log, self, err, relays, Find(k.rig, Relay))
}
