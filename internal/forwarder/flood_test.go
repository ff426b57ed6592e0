package forwarder

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// floodEnv makes the floods last longer, for example 30s.
const floodEnv = "SHIMTRACE_FLOOD"

func floodTime(t *testing.T) time.Duration {
	d, err := time.ParseDuration(os.Getenv(floodEnv))
	if err != nil {
		return 500 * time.Millisecond
	}
	return d
}

// peakHeap returns the heap's largest growth while f ran.
func peakHeap(t *testing.T, f func()) (grown uint64) {
	t.Helper()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	runtime.GC()
	before := heap()
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			if now := heap(); now > before {
				grown = max(grown, now-before)
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	f()
	close(stop)
	watching.Wait()
	return grown
}

// counting is a Sink that only counts.
type counting struct{ spans, ends atomic.Int64 }

func (c *counting) Span(ConnInfo, *span.Span) { c.spans.Add(1) }
func (c *counting) Closed(ConnInfo, error)    { c.ends.Add(1) }

// split counts one sandbox's spans separately.
type split struct {
	good, rest counting
}

func (s *split) pick(c ConnInfo) *counting {
	if c.Sandbox == "good" {
		return &s.good
	}
	return &s.rest
}
func (s *split) Span(c ConnInfo, span *span.Span) { s.pick(c).Span(c, span) }
func (s *split) Closed(c ConnInfo, err error)     { s.pick(c).Closed(c, err) }

// TestFlood: several VMs send as fast as they can while another sends what an agent sends.
// Memory stays bounded, and the other VM loses nothing.
func TestFlood(t *testing.T) {
	sample := sampleFrame(t)
	for name, b := range map[string][]byte{
		"spans":            bytes.Repeat(sample, 64),
		"large spans":      frame(append([]byte(`{"span_context":{"trace_id":1,"name":"`), bytes.Repeat([]byte("x"), 3<<20)...)),
		"empty frames":     make([]byte, 64<<10),
		"oversized frames": frame(make([]byte, 5<<20)),
		"no end":           append(binary.BigEndian.AppendUint64(nil, oversizedFrame), make([]byte, 64<<10)...),
		"garbage":          bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 1, 0, 'x'}, 7<<10),
	} {
		t.Run(name, func(t *testing.T) {
			sink := new(split)
			f := forward(t, sink, Limits{})
			good := connect(t, f, pod("good"))
			data := frames(captured.Frames(t, capturePod))
			stop := make(chan struct{})
			var flooding sync.WaitGroup
			var sent int64
			began, cpu := time.Now(), cpuTime()
			heap := peakHeap(t, func() {
				for i := range 3 {
					for range 2 {
						a := connect(t, f, pod(fmt.Sprint("bad-", i)))
						flooding.Go(func() {
							for {
								if _, err := a.Write(b); err != nil {
									return
								}
								select {
								case <-stop:
									a.Close()
									return
								default:
								}
							}
						})
					}
				}
				for end := time.Now().Add(floodTime(t)); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
					good.send(data[sent%int64(len(data))])
					sent++
				}
				close(stop)
			})
			eventually(t, "the good one's spans", func() bool { return sink.good.spans.Load() == sent })
			flooding.Wait()
			n := f.Snapshot()
			if lost := n.of("good").Lost; len(lost) != 0 {
				t.Errorf("the good one lost %v", lost)
			}
			// Six readers, three queues: their limits together.
			if heap > 96<<20 {
				t.Errorf("the heap grew by %d bytes", heap)
			}
			t.Logf("%d MB/s read, %.2f CPUs with the senders, heap +%d MiB at most, RSS %d MiB, good spans %d, lost %v",
				int(float64(n.Bytes)/1e6/time.Since(began).Seconds()), (cpuTime()-cpu).Seconds()/time.Since(began).Seconds(),
				heap>>20, residentMiB(t), sent, n.Lost)
		})
	}
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func residentMiB(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize() >> 20
}

// TestConnectionsInALoop: a guest opens and closes connections, or leaves them in the middle of
// a frame. It takes no descriptors, goroutines or memory beyond its share, is counted, and
// costs other guests nothing.
func TestConnectionsInALoop(t *testing.T) {
	sink := new(split)
	f := forward(t, sink, Limits{})
	good := connect(t, f, pod("good"))
	b := sampleFrame(t)
	files, routines := openFiles(t), runtime.NumGoroutine()
	began := time.Now()
	const n = 3000
	var half []peer
	heap := peakHeap(t, func() {
		for i := range n {
			a := connect(t, f, pod("bad"))
			_ = a.SetWriteDeadline(time.Now().Add(patience))
			if i%3 == 0 {
				_, _ = a.Write(b[:len(b)/2]) // fails if the connection is refused
			}
			if i%10 == 0 {
				half = append(half, a)
			} else {
				a.Close()
			}
			if i%100 == 0 {
				good.send(b)
			}
			if c := f.Snapshot().of("bad"); c.Connections > 4 {
				t.Fatalf("%d connections at once", c.Connections)
			}
		}
	})
	if took := openFiles(t) - files - len(half); took > 8 {
		t.Errorf("%d descriptors more than before", took)
	}
	if took := runtime.NumGoroutine() - routines; took > 16 {
		t.Errorf("%d goroutines more than before", took)
	}
	if heap > 16<<20 {
		t.Errorf("the heap grew by %d bytes", heap)
	}
	eventually(t, "the good one's spans", func() bool { return sink.good.spans.Load() == n/100 })
	c := f.Snapshot().of("bad")
	if c.Accepted+c.Refused[reasonConnections] != n || c.Accepted > connectionBurst+2+uint64(time.Since(began)/time.Second)*connectionRate {
		t.Errorf("%+v", c)
	}
	for _, a := range half {
		a.Close()
	}
	eventually(t, "what was half is counted", func() bool {
		c := f.Snapshot().of("bad")
		return c.Connections == 0 && c.Lost[losses.CutShort] > 0
	})
	if lost := f.Snapshot().of("good").Lost; len(lost) != 0 {
		t.Errorf("the good one lost %v", lost)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Guests",
		Fault: "a guest opens 3000 connections in a loop, closes most, and leaves some in the middle of a frame",
		Pod:   "nothing",
		Lost:  "connections beyond 4 at once, 32 in a row and one a second are refused and counted; the guest's half frames, as `cut_short`",
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestManyConnections: of one VM's ten thousand connections all but a few are refused at once;
// another VM's spans arrive.
func TestManyConnections(t *testing.T) {
	sink := new(split)
	f := forward(t, sink, Limits{})
	good := connect(t, f, pod("good"))
	b := sampleFrame(t)
	const n = 10_000
	heap := peakHeap(t, func() {
		for i := range n {
			connect(t, f, pod("bad"))
			if i%100 == 0 {
				good.send(b)
			}
		}
		eventually(t, "the good one's spans", func() bool { return sink.good.spans.Load() == n/100 })
	})
	c := f.Snapshot().of("bad")
	if c.Connections != 4 || c.Accepted != 4 || c.Refused[reasonConnections] != n-4 {
		t.Errorf("%+v", c)
	}
	t.Logf("heap +%d MiB at most", heap>>20)
}

// TestManyAgents: many agents, each with an open connection that sends; in a long run as many
// as descriptors allow, each taking two here.
func TestManyAgents(t *testing.T) {
	n := 500
	if os.Getenv(floodEnv) != "" {
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		l.Cur = l.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		n = min(10_000, (int(l.Max)-200)/2)
	}
	sink := new(split)
	f := forward(t, sink, Limits{MaxSandboxes: n, QueuedSpans: 16})
	b := sampleFrame(t)
	agents := make([]peer, n)
	heap := peakHeap(t, func() {
		for i := range agents {
			agents[i] = connect(t, f, pod(fmt.Sprint(i)))
		}
		for range 2 {
			for _, a := range agents {
				a.send(b)
			}
		}
		eventually(t, "all spans", func() bool { return sink.rest.spans.Load() == int64(2*n) })
		for _, a := range agents {
			a.Close()
		}
		eventually(t, "all ends", func() bool { return sink.rest.ends.Load() == int64(n) })
	})
	if c := f.Snapshot(); c.Delivered != uint64(2*n) || len(c.Lost) != 0 || len(c.Refused) != 0 {
		t.Errorf("%+v", c.Counts)
	}
	t.Logf("%d connections, heap +%d MiB at most: %d KiB each", n, heap>>20, int(heap)/n>>10)
}
