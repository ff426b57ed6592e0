package keeper

import (
	"context"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestOneWatches: of many watching Keepers one pings, and another one when that ends.
func TestOneWatches(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := host.LockFile(path, unix.LOCK_EX, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	var pings atomic.Int64
	answering, err := Answer(path, func() string {
		pings.Add(1)
		return "here"
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answering.Close()
	const watchers, every = 16, 20 * time.Millisecond
	looks := make([]func() time.Time, watchers)
	ends := make([]context.CancelFunc, watchers)
	over := make([]chan struct{}, watchers)
	for i := range watchers {
		k := New(Options{Lock: path, Program: func() (string, error) { return "", nil }, Every: every, Logf: t.Logf})
		ctx, end := context.WithCancel(t.Context())
		ends[i], over[i] = end, make(chan struct{})
		looks[i] = func() time.Time {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.looked
		}
		go func() {
			defer close(over[i])
			k.Watch(ctx)
			k.Close(0)
		}()
	}
	defer func() {
		for i := range watchers {
			ends[i]()
			<-over[i]
		}
	}()
	active := func() (all []int) {
		before := make([]time.Time, watchers)
		for i, look := range looks {
			before[i] = look()
		}
		time.Sleep(10 * every)
		for i, look := range looks {
			if look() != before[i] {
				all = append(all, i)
			}
		}
		return all
	}
	var first []int
	eventually(t, "one watches", func() bool { first = active(); return len(first) == 1 })
	before := pings.Load()
	began := time.Now()
	time.Sleep(20 * every)
	if n, most := pings.Load()-before, 2*int64(time.Since(began)/every); n > most {
		t.Errorf("%d pings in %v", n, time.Since(began))
	}
	ends[first[0]]()
	<-over[first[0]]
	eventually(t, "another one watches", func() bool { now := active(); return len(now) == 1 && now[0] != first[0] })
}

// TestGuardEndsAndDoesNotStart: Guard ends a process that does not answer; the process's
// own Keepers start the next one.
func TestGuardEndsAndDoesNotStart(t *testing.T) {
	f := newAnswering(t)
	k := New(f.opts)
	defer k.Close(0)
	k.Ensure()
	f.answers(t)
	var last atomic.Value
	opts := f.opts
	opts.Program, opts.Args = nil, nil
	opts.Killing = func(answer string) func() {
		last.Store(answer)
		return func() {} // it needs a processor to end, and may take as long as if it were stuck
	}
	guard := New(opts)
	defer guard.Close(0)
	ctx, end := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		guard.Guard(ctx)
	}()
	defer func() {
		end()
		<-over
	}()
	eventually(t, "the guard has an answer", func() bool {
		guard.mu.Lock()
		defer guard.mu.Unlock()
		return guard.answer == "nothing"
	})
	testkit.Stop(t, f.Started(t)[0])
	eventually(t, "the guard has ended it", func() bool {
		return strings.Contains(strings.Join(f.log.All(), "\n"), "is stopped")
	})
	eventually(t, "its lock is free", func() bool {
		lock, err := host.LockFile(f.opts.Lock, unix.LOCK_EX, 0)
		if err != nil {
			return false
		}
		lock.Close()
		return true
	})
	time.Sleep(10 * f.opts.Every)
	if n := len(f.Started(t)); n != 1 || last.Load() != "nothing" {
		t.Errorf("started %d times, the last answer was %q, log %q", n, last.Load(), f.log.All())
	}
	eventually(t, "another one is there", func() bool {
		k.Ensure() // the guard may just have the lock
		return len(f.Started(t)) == 2
	})
}
