package forwarder_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// bill is the cost of a stream.
type bill struct {
	cpu        time.Duration
	heap, disk uint64
	counts     forwarder.Snapshot
	peak       uint64         // of the heap, above its size before
	wall       time.Duration  // while it was sent
	drops      map[string]int // in the journal
}

// pay sends a stream through a Forwarder without limits to a journal, and returns its cost,
// without the sender's.
func pay(t *testing.T, stream []byte) bill {
	const enough = 1 << 40
	return through(t, forwarder.Limits{
		SpansPerSecond: enough, SpanBurst: enough, BytesPerSecond: enough, ByteBurst: enough, ReadBytesPerSecond: enough,
		CPUPercent: 1 << 20, CPUBurst: time.Hour, QueuedSpans: 1 << 16, QueuedBytes: enough,
	}, func(agent *net.UnixConn, _ *forwarder.Forwarder) { send(t, agent, stream) })
}

// through runs sender against a Forwarder with a journal until everything sent is on disk.
func through(t *testing.T, o forwarder.Limits, sender func(agent *net.UnixConn, r *forwarder.Forwarder)) (b bill) {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{MaxBytes: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	r := forwarder.New(forwarder.Options{Limits: o, Journal: j, Collation: isolated})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	agent := connect(t, r, listen.Origin{Sandbox: "pod"})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	cpu := processTime(t)
	var own time.Duration // the sender's
	began := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		began := threadTime()
		sender(agent, r)
		own = threadTime() - began
		runtime.UnlockOSThread()
	}()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(50 * time.Millisecond):
		}
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		b.peak = max(b.peak, now.HeapInuse-min(now.HeapInuse, before.HeapInuse))
	}
	b.wall = time.Since(began)
	agent.Close()
	eventually(t, "the end", func() bool { return r.Snapshot().Connections == 0 && r.Snapshot().Queued == 0 })
	stop()
	running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	b.cpu = processTime(t) - cpu - own
	runtime.ReadMemStats(&after)
	b.heap = after.TotalAlloc - before.TotalAlloc
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, path := range segments {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		b.disk += uint64(info.Size())
	}
	b.counts = r.Snapshot()
	b.drops = dropsIn(t, dir)
	return b
}

// dropsIn returns the losses in a journal, by reason.
func dropsIn(t *testing.T, dir string) map[string]int {
	t.Helper()
	all := make(map[string]int)
	if _, err := journal.Scan(dir, func(rec journal.Record) error {
		if rec.Kind != journal.KindDrops {
			return nil
		}
		drops, err := rec.Drops()
		for reason, n := range drops {
			all[reason] += n
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func processTime(t testing.TB) time.Duration { return usage(t, unix.RUSAGE_SELF) }

func threadTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func usage(t testing.TB, who int) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestCostOfShapes: a byte from a guest costs at most what its shape declares, of processor
// time, memory and disk. The unit is a byte of a real pod, measured in the same run.
func TestCostOfShapes(t *testing.T) {
	if race {
		t.Skip("the race detector costs more than what is measured")
	}
	const size = 2 << 20
	all := shapes()
	pod := all[0].variants(t, size)["raw"]
	pay(t, pod) // warms up
	for _, s := range all {
		for encoding, stream := range s.variants(t, size) {
			t.Run(s.name+"/"+encoding, func(t *testing.T) {
				// The least of several: others use the machine too.
				perByte := func(stream []byte) (b bill) {
					for i := range 3 {
						if now := pay(t, stream); i == 0 || now.cpu < b.cpu {
							b = now
						}
					}
					return b
				}
				real, b := perByte(pod), perByte(stream)
				cpu := float64(b.cpu) / float64(len(stream)) / (float64(real.cpu) / float64(len(pod)))
				heap, disk := float64(b.heap)/float64(len(stream)), float64(b.disk)/float64(len(stream))
				t.Logf("%5.1f ns, %5.1f times a real pod's; %6.2f bytes of memory, %5.2f of disk; %v", float64(b.cpu)/float64(len(stream)), cpu, heap, disk, fmt.Sprint(b.counts.Sent, b.counts.Lost))
				if cpu > s.cpu {
					t.Errorf("a byte takes %.1f times as long as a real one, at most %.1f are declared", cpu, s.cpu)
				}
				if heap > s.heap {
					t.Errorf("a byte takes %.1f bytes of memory in passing, at most %.1f are declared", heap, s.heap)
				}
				if disk > s.disk {
					t.Errorf("a byte takes %.2f bytes of disk, at most %.2f are declared", disk, s.disk)
				}
			})
		}
	}
}

// TestFloodOfShapes: whatever a guest floods its relay with, the relay stays within its share
// of processor time and memory, reads on, and counts in the journal what it drops.
func TestFloodOfShapes(t *testing.T) {
	const (
		burst   = 50 * time.Millisecond
		percent = 20
		// reading is the cost of reading at a guest's pace, as a share of a core.
		reading = 0.25
		memory  = 40 << 20
	)
	n := 0
	for _, s := range shapes() {
		for encoding, stream := range s.variants(t, 256<<10) {
			n++
			t.Run(s.name+"/"+encoding, func(t *testing.T) {
				var sent, frames uint64
				for rest := stream; len(rest) > 0; rest = rest[8+binary.BigEndian.Uint64(rest):] {
					frames++
				}
				b := through(t, forwarder.Limits{CPUPercent: percent, CPUBurst: burst}, func(agent *net.UnixConn, _ *forwarder.Forwarder) {
					for end := time.Now().Add(floodTime(t)); time.Now().Before(end); sent += frames {
						send(t, agent, stream)
					}
				})
				if allowed := burst + time.Duration(float64(b.wall)*(percent/100.+reading)) + 2*slack; b.cpu > allowed && !race {
					t.Errorf("it took %v of a processor in %v", b.cpu, b.wall)
				}
				if b.peak > memory && !race {
					t.Errorf("it took %d MiB of memory", b.peak>>20)
				}
				counted := b.counts.Delivered
				total := 0
				for _, reason := range losses.All() {
					if reason != losses.Duplicate && reason != losses.Collision { // after delivery
						counted += b.counts.Lost[reason]
					}
					if n := b.drops["agent: "+reason.String()]; uint64(n) != b.counts.Lost[reason] {
						t.Errorf("the journal has %d spans lost for %s, not %d", n, reason, b.counts.Lost[reason])
					}
					total += b.drops["agent: "+reason.String()]
				}
				if counted != sent {
					t.Errorf("%d spans were sent, %d delivered or lost", sent, counted)
				}
				t.Logf("%4.0f MB/s, %4.0f%% of a core, %3d MiB; %d sent, %v", float64(b.counts.Bytes)/1e6/b.wall.Seconds(), 100*b.cpu.Seconds()/b.wall.Seconds(), b.peak>>20, sent, b.drops)
			})
		}
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Guests",
		Fault: fmt.Sprintf("a guest floods its relay as fast as it can, with spans of %d shapes that are dear to decode, to place or to keep", n),
		Pod:   "nothing",
		Lost:  "the guest's own spans beyond its share of spans, bytes and processor time: `span_rate`, `byte_rate`, `cpu`, `queue_full`, all in the journal",
	})
}

// slack is for the Go runtime's own work.
const slack = 30 * time.Millisecond

func floodTime(t *testing.T) time.Duration {
	if d, err := time.ParseDuration(os.Getenv("SHIMTRACE_FLOOD")); err == nil {
		return d
	}
	if race {
		return 20 * time.Millisecond
	}
	return 150 * time.Millisecond
}

// TestLossesAreWritten: losses are soon in the journal, even if nothing else is written and the
// process cannot close anything, and however long the guest was silent before.
func TestLossesAreWritten(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	r := forwarder.New(forwarder.Options{Limits: forwarder.Limits{SpansPerSecond: 1, SpanBurst: 10}, Journal: j, Collation: isolated})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	defer func() {
		stop()
		running.Wait()
		_ = r.Close(t.Context())
	}()
	agent := connect(t, r, listen.Origin{Sandbox: "pod"})
	written := func(want int) {
		eventually(t, "all is counted in the journal", func() bool {
			n := 0
			for _, lost := range dropsIn(t, dir) {
				n += lost
			}
			return n == want
		})
	}
	send(t, agent, bytes.Repeat(frame([]byte("garbage")), 10))
	send(t, agent, bytes.Repeat(frame([]byte("more")), 20))
	written(30)
	time.Sleep(1200 * time.Millisecond) // Run has begun its pause: on a slow host the test is only less strict
	send(t, agent, frame([]byte("after a while")))
	written(31)
	reliability.Row(t, reliability.Fault{
		Area:  "Processes",
		Fault: "a relay is killed after it has lost spans of its guest",
		Pod:   "nothing of it: its end is another row's",
		Lost:  "what was lost is in the journal within a second, by its reason; not counted are the losses of that second, and the spans that waited: `queued_spans`, `held_spans` and a batch of 256 at the most",
	})
}
