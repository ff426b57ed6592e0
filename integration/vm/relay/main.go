// Command relay is what a relay process does with the spans of its sandbox's VM,
// and nothing else of a relay: it finds the VM's CID, claims it with the guard, and
// shows on the console what arrives. It runs in a guest that is a host. It is that
// host's guard, too.
//
//	relay -sandbox ID -shim PID -dir DIR
//	relay -guard -dir DIR [-hold 10s]
//
// When a connection pauses, a line tells the number of its spans so far and a digest
// of them all; when it ends, a line for each trace tells the names of its spans.
// SIGTERM ends the process with a line of counts.
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"hash"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shimtrace/shimtrace/integration/vm"
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/host"
)

func main() {
	sandbox := flag.String("sandbox", "", "the sandbox's id")
	shim := flag.Int("shim", 0, "the process whose descendant is the sandbox's QEMU")
	dir := flag.String("dir", "", "the directory that the relays share")
	hold := flag.Duration("hold", 0, "how long a connection waits for its relay")
	isGuard := flag.Bool("guard", false, "be the guard")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	r := &relay{name: *sandbox, digests: map[uint64]*digest{}}
	run := func() error { return r.run(ctx, *shim, *dir) }
	if *isGuard {
		r.name = "guard"
		logf := func(format string, args ...any) { r.say(format, args...) }
		run = func() error {
			return guard.Run(ctx, guard.Options{Dir: *dir, VSOCK: listen.OpenVSOCK, Hold: *hold, Logf: logf})
		}
	}
	if err := run(); err != nil {
		r.say("%v", err)
		os.Exit(1)
	}
}

type relay struct {
	name string

	mu      sync.Mutex
	digests map[uint64]*digest // by connection
}

// A digest is what is shown of a connection.
type digest struct {
	spans int
	hash.Hash
	paused *time.Timer
	names  map[[16]byte][]string // of spans, by trace
}

func (r *relay) run(ctx context.Context, shim int, dir string) error {
	if os.Getenv(vm.EnvCID) == "" {
		return fmt.Errorf("%s is not set: this is not a guest", vm.EnvCID)
	}
	f := forwarder.New(forwarder.Options{Sink: r})
	var claimed atomic.Uint32
	client := new(guard.Client)
	client.Register(guard.ClientOptions{
		Dir: dir,
		// Nobody goes on for it.
		Who:  guard.Registration{ID: r.name, Program: "/bin/false", Args: []string{"false"}, Sandbox: r.name},
		Logf: func(format string, args ...any) { r.say(format, args...) },
		VSOCK: func(file *os.File, cid uint32) {
			conn, err := listen.VSOCKConn(file)
			if err != nil {
				r.say("%v", err)
				return
			}
			from := listen.Origin{CID: cid}
			if cid == claimed.Load() {
				from.Sandbox = r.name
			}
			f.Take(conn, from)
		},
	})
	go r.tellGuarded(ctx, client)
	go func() {
		cid, err := listen.FindCID(ctx, listen.CIDSource{Sandbox: r.name, Shim: &listen.Shim{Find: func() host.Process { p, _ := host.Proc("/proc").Process(shim); return p }}})
		if err != nil {
			r.say("%v", err)
			return
		}
		claimed.Store(cid)
		client.Claim(cid)
		r.say("process %d claims CID %d", os.Getpid(), cid)
	}()
	<-ctx.Done()
	client.Leave()
	closing, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := f.Close(closing)
	n := f.Snapshot()
	r.say("delivered %d, lost %v, refused %v", n.Delivered, n.Lost, n.Refused)
	return err
}

// tellGuarded says when there is another guard.
func (r *relay) tellGuarded(ctx context.Context, client *guard.Client) {
	was, guards := false, 0
	for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if now := client.Guarded(); now != was {
			if was = now; now {
				guards++
				r.say("guard %d", guards)
			}
		}
	}
}

// Span adds to the connection's digest.
func (r *relay) Span(conn forwarder.ConnInfo, span *span.Span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	const pause = 200 * time.Millisecond
	d := r.digests[conn.ID]
	if d == nil {
		d = &digest{Hash: sha256.New(), names: map[[16]byte][]string{}}
		d.paused = time.AfterFunc(pause, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.say("sandbox %q CID %d: %d spans, digest %x", conn.Sandbox, conn.CID, d.spans, d.Sum(nil)[:8])
		})
		r.digests[conn.ID] = d
	}
	d.paused.Reset(pause)
	d.spans++
	d.Write(span.AppendOTLP(nil))
	d.names[span.TraceID] = append(d.names[span.TraceID], span.Name)
}

// Closed shows the connection's traces.
func (r *relay) Closed(conn forwarder.ConnInfo, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.digests[conn.ID]; d != nil {
		for trace, names := range d.names {
			slices.Sort(names)
			r.say("sandbox %q CID %d: trace %x: %s", conn.Sandbox, conn.CID, trace, strings.Join(names, " "))
		}
	}
	r.say("sandbox %q CID %d: closed: %v", conn.Sandbox, conn.CID, err)
}

// say prints one line by one write, so that those of several processes do not mix.
func (r *relay) say(format string, args ...any) {
	fmt.Println("relay " + r.name + ": " + fmt.Sprintf(format, args...))
}
