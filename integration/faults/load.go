package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/traced"
)

// patternSize is what each exec writes.
const patternSize = 8 << 20

// patience bounds every call. It is long, since a machine may be busy, and short of
// what a test may take: a call that hangs is a failed one.
const patience = 4 * time.Minute

// Options say what a load does. The zero value is the load that faults have by default.
type Options struct {
	Pods  int // containers that live through it all; 3 if zero
	Execs int // workers that exec; 2 if zero
	Lives int // workers that start and end containers; 1 if zero
	// Runtime is the type of the containers' runtime; the wrapped runc's if empty.
	Runtime string
	// Echo adds the shim that echoes: calls of up to 4 MB and streams.
	Echo bool
	// Excused reports whether an error is the fault's own, and no failure. What such
	// an error has interrupted is cleared away and not expected to be recorded.
	Excused func(error) bool
}

// A Load is work that goes on until Stop.
type Load struct {
	*Ledger
	t    testing.TB
	in   *traced.Install
	opts Options
	c    *containerd
	pods []*pod
	echo *echoShim

	forgotten map[int]time.Time // the shims that ClearForgotten has told to end, and when

	pattern []byte
	stop    chan struct{}
	workers sync.WaitGroup
	serial  atomic.Int64
	ops     atomic.Int64 // finished, of whatever kind
}

// A pod is a container that must live.
type pod struct {
	id  string
	pid uint32
	// Its relay's address, and the task service of its shim: those of the containerd
	// that started it.
	socket, service string
}

// Start puts a load on an install. It returns once every kind of work has been done
// once, and nothing has failed.
func Start(t testing.TB, in *traced.Install, opts Options) *Load {
	t.Helper()
	for n, otherwise := range map[*int]int{&opts.Pods: 3, &opts.Execs: 2, &opts.Lives: 1} {
		if *n == 0 {
			*n = otherwise
		}
	}
	l := newLoad(t, in, opts)
	for i := range opts.Pods {
		p := &pod{id: fmt.Sprint("pod", i)}
		var err error
		if p.pid, err = l.begin(p.id, "sleep", "100000"); err != nil {
			t.Fatalf("start %s: %v", p.id, err)
		}
		if p.socket, p.service, err = l.relaySocket(p.id); err != nil {
			t.Fatal(err)
		}
		l.pods = append(l.pods, p)
	}
	if opts.Echo {
		l.echo = startEcho(t, in)
	}
	var all []func() error
	for i, p := range l.pods {
		all = append(all, func() error { return l.ask(p) })
		if i == 0 {
			all = append(all, func() error { return l.askRelay(p) })
		}
	}
	for i := range opts.Execs {
		all = append(all, func() error { return l.exec(l.pods[i%len(l.pods)]) })
	}
	for range opts.Lives {
		all = append(all, l.life)
	}
	if l.echo != nil {
		all = append(all, l.echoCall, l.echoStream)
	}
	for _, work := range all {
		if err := work(); err != nil {
			t.Fatalf("before any fault: %v", err)
		}
	}
	for _, work := range all {
		l.workers.Go(func() { l.repeat(work) })
	}
	t.Cleanup(l.Stop)
	return l
}

func newLoad(t testing.TB, in *traced.Install, opts Options) *Load {
	t.Helper()
	if opts.Runtime == "" {
		opts.Runtime = traced.NerdctlRuntime
	}
	if opts.Excused == nil {
		opts.Excused = func(error) bool { return false }
	}
	l := &Load{Ledger: newLedger(), t: t, in: in, opts: opts, pattern: makePattern(), stop: make(chan struct{}), forgotten: make(map[int]time.Time)}
	var err error
	if l.c, err = dial(in.Rig, opts.Runtime, l.pattern); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.c.conn.Close() })
	return l
}

// StartAtOnce has so many containers start at the same time, end by themselves and be
// removed, and returns when all are gone.
func StartAtOnce(t testing.TB, in *traced.Install, n int) *Load {
	t.Helper()
	l := newLoad(t, in, Options{})
	for range n {
		l.workers.Go(func() { _ = l.life() }) // the ledger has its failure
	}
	l.workers.Wait()
	return l
}

func makePattern() []byte {
	b := make([]byte, patternSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// repeat works until the load is stopped.
func (l *Load) repeat(work func() error) {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		if err := work(); err != nil {
			time.Sleep(10 * time.Millisecond) // what fails at once would fail a thousand times
		}
		l.ops.Add(1)
	}
}

// Ops returns how much has been done so far.
func (l *Load) Ops() int64 { return l.ops.Load() }

// Stop ends the work, in order: what was begun is finished. The pods live on.
func (l *Load) Stop() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.workers.Wait()
}

// podsLost counts the pods that do not run any more as they did.
func (l *Load) podsLost() (lost int) {
	for _, p := range l.pods {
		if err := l.alive(p); err != nil {
			l.t.Logf("%s is lost: %v", p.id, err)
			lost++
		}
	}
	if l.echo != nil && !l.echo.alive() {
		l.t.Logf("the echoing shim is lost")
		lost++
	}
	return lost
}

// podCount returns how many there are to lose.
func (l *Load) podCount() int {
	if l.echo != nil {
		return len(l.pods) + 1
	}
	return len(l.pods)
}

// End stops the load and removes its pods; how many were lost is what it returns.
func (l *Load) End() (lost int) {
	l.Stop()
	lost = l.podsLost()
	for _, p := range l.pods {
		if err := l.remove(p.id); err != nil {
			l.t.Errorf("remove %s: %v", p.id, err)
		}
	}
	if l.echo != nil {
		l.echo.end()
	}
	return lost
}

// made makes a call, counts it, and returns its error, with what was called.
func (l *Load) made(what string, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := call(l.c.named(ctx))
	if err != nil && l.opts.Excused(err) {
		return errExcused
	}
	l.call(what, err)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// quick is made for a call that has nothing to wait for.
func (l *Load) quick(what string, call func(ctx context.Context) error) error {
	begun := time.Now()
	err := l.made(what, call)
	if err == nil {
		l.took(time.Since(begun))
	}
	return err
}

// errExcused is the failure of a call that the fault makes fail by itself.
var errExcused = errors.New("excused")

// next returns an id that no other has.
func (l *Load) next(prefix string) string { return fmt.Sprint(prefix, l.serial.Add(1)) }
