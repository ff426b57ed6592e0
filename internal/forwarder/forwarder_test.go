package forwarder

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

func TestCaptures(t *testing.T) {
	sink := newRecord()
	f := forward(t, sink, Limits{})
	var sending sync.WaitGroup
	for name, want := range map[string]int{capturePod: spansPod, capturePodRS: spansPodRS, captureOld: spansOld} {
		data := captured.Frames(t, name)
		a := connect(t, f, listen.Origin{Sandbox: name, CID: 7})
		sending.Go(func() {
			for chunk := range chunks(data, 1000) {
				a.send(chunk)
			}
			a.Close()
		})
		eventually(t, name+" is delivered", func() bool { return len(sink.ended(name)) > 0 })
		if err := sink.ended(name)[0]; err != nil {
			t.Errorf("%s ended with %v", name, err)
		}
		var d span.Span
		decoder := agent.NewDecoder(agent.Options{})
		spans := sink.spans[name]
		if len(spans) != want {
			t.Errorf("%s: %d spans of %d", name, len(spans), want)
		}
		for i, frame := range frames(data) {
			if err := decoder.Decode(frame[prefixSize:], &d); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(d.AppendOTLP(nil), spans[i].AppendOTLP(nil)) {
				t.Errorf("%s: span %d is not the one that was sent", name, i)
			}
			if strings.Contains(string(spans[i].AppendOTLP(nil)), "hunter2") {
				t.Errorf("%s: span %d holds a secret", name, i)
			}
		}
		n := f.Snapshot().of(name)
		if n.Delivered != uint64(want) || n.Bytes != uint64(len(data)) || len(n.Lost) != 0 || n.Accepted != 1 {
			t.Errorf("%s: %+v", name, n)
		}
		if c := sink.conns[name]; c.Sandbox != name || c.CID != 7 || c.ID == 0 || c.Accepted.IsZero() {
			t.Errorf("%s came by %+v", name, c)
		}
	}
	sending.Wait()
}

func chunks(b []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := min(size, len(b))
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// TestCutAtEveryByte: wherever the stream ends, complete frames are delivered and the rest is
// counted.
func TestCutAtEveryByte(t *testing.T) {
	whole := sampleFrame(t)
	second := frames(captured.Frames(t, captureOld))[0]
	stream := append(bytes.Clone(whole), second...)
	sink := newRecord()
	f := forward(t, sink, Limits{MaxSandboxes: len(stream) + 1, QueuedSpans: 2})
	for n := range len(stream) + 1 {
		a := connect(t, f, pod(fmt.Sprint(n)))
		a.send(stream[:n])
		a.Close()
	}
	for n := range len(stream) + 1 {
		name := fmt.Sprint(n)
		eventually(t, "the end", func() bool { return len(sink.ended(name)) == 1 })
		err := sink.ended(name)[0]
		clean := n == 0 || n == len(whole) || n == len(stream)
		if clean != (err == nil) || !clean && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: ended with %v", n, err)
		}
		want := 0
		if n >= len(whole) {
			want++
		}
		if n >= len(stream) {
			want++
		}
		if got := sink.count(name); got != want {
			t.Errorf("cut at %d: %d spans of %d", n, got, want)
		}
	}
	n := f.Snapshot()
	if got, want := n.Lost[losses.CutShort], uint64(len(stream)+1-3); got != want || len(n.Lost) != 1 {
		t.Errorf("lost: %v, not %d cut short", n.Lost, want)
	}
}

// TestGarbage: no bytes close a connection. Frames after garbage in a frame are delivered, and
// each frame is counted.
func TestGarbage(t *testing.T) {
	sink := newRecord()
	f := forward(t, sink, Limits{SpanBurst: 1 << 20, ByteBurst: 1 << 30, CPUBurst: time.Hour})
	good := sampleFrame(t)
	random := rand.New(rand.NewPCG(1, 2))
	a := connect(t, f, pod("garbage"))
	const n = 2000
	for range n {
		b := make([]byte, random.IntN(300))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		if len(b) > 2 && random.IntN(2) == 0 {
			copy(b, `{"`)
		}
		a.send(frame(b))
		damaged := bytes.Clone(good)
		damaged[prefixSize+random.IntN(len(damaged)-prefixSize)] ^= byte(1 + random.IntN(255))
		a.send(damaged)
		a.send(good)
	}
	eventually(t, "all frames are accounted for", func() bool { return f.Snapshot().of("garbage").total() == 3*n })
	if got := sink.count("garbage"); got < n {
		t.Errorf("%d spans delivered, not the %d good ones", got, n)
	}
	if !a.isOpen() {
		t.Error("the connection was closed")
	}
	// Bytes that are no frames at all are still read.
	wild := connect(t, f, pod("wild"))
	b := make([]byte, 64<<10)
	for range 100 {
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		wild.send(b)
	}
	eventually(t, "all is read", func() bool { return f.Snapshot().of("wild").Bytes == 100*uint64(len(b)) })
	if !wild.isOpen() {
		t.Error("the wild connection was closed")
	}
}

// TestEnormousLength: a frame of enormous length is skipped forever, costs no memory, and harms
// nobody else.
func TestEnormousLength(t *testing.T) {
	sink := newRecord()
	f := forward(t, sink, Limits{})
	a := connect(t, f, pod("enormous"))
	a.send(binary.BigEndian.AppendUint64(nil, oversizedFrame))
	const sent = 32 << 20
	part := make([]byte, 64<<10) // once: it is the sender's memory
	heap := peakHeap(t, func() {
		for range sent / len(part) {
			a.send(part)
		}
		eventually(t, "all is read", func() bool { return f.Snapshot().of("enormous").Bytes == sent+prefixSize })
	})
	if heap > 16<<20 {
		t.Errorf("the heap grew by %d bytes", heap)
	}
	if !a.isOpen() {
		t.Error("the connection was closed")
	}
	other := connect(t, f, pod("other"))
	other.send(sampleFrame(t))
	eventually(t, "the other's span", func() bool { return sink.count("other") == 1 })

	// A complete oversized frame costs only itself.
	ends := connect(t, f, pod("ends"))
	ends.send(frame(make([]byte, 5<<20)))
	ends.send(sampleFrame(t))
	eventually(t, "the span after it", func() bool { return sink.count("ends") == 1 })
	if lost := f.Snapshot().of("ends").Lost; lost[losses.Oversized] != 1 || len(lost) != 1 {
		t.Errorf("lost: %v", lost)
	}
}

// TestSlow: a slow agent is not closed and delays nobody.
func TestSlow(t *testing.T) {
	sink := newRecord()
	f := forward(t, sink, Limits{})
	slow := connect(t, f, pod("slow"))
	silent := connect(t, f, pod("silent"))
	b := sampleFrame(t)
	for i := range b {
		slow.send(b[i : i+1])
		if i%100 == 0 {
			a := connect(t, f, pod("quick"))
			a.send(b)
			a.Close()
			want := 1 + i/100
			eventually(t, "the quick one's span", func() bool { return sink.count("quick") == want })
			eventually(t, "its end", func() bool { return len(sink.ended("quick")) == want })
		}
		if i%10 == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	eventually(t, "the slow one's span", func() bool { return sink.count("slow") == 1 })
	time.Sleep(300 * time.Millisecond)
	if !slow.isOpen() || !silent.isOpen() {
		t.Error("a silent connection was closed")
	}
	silent.send(b)
	eventually(t, "the silent one's span", func() bool { return sink.count("silent") == 1 })
}

// TestStalledSink: its sandbox loses spans, by number and by size, and is still read; others
// are unaffected.
func TestStalledSink(t *testing.T) {
	for name, opts := range map[string]Limits{
		"by number": {QueuedSpans: 10},
		"by size":   {QueuedBytes: 10 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			opts.SpanBurst, opts.ByteBurst, opts.CPUBurst = 1<<20, 1<<30, time.Hour
			sink := newRecord()
			f := forward(t, sink, opts)
			resume := sink.stall("stalled")
			defer resume()
			b := sampleFrame(t)
			a := connect(t, f, pod("stalled"))
			const n = 5000
			for range n {
				a.send(b)
			}
			eventually(t, "all is read", func() bool { return f.Snapshot().of("stalled").total() == n })
			other := connect(t, f, pod("other"))
			other.send(b)
			eventually(t, "the other's span", func() bool { return sink.count("other") == 1 })
			c := f.Snapshot().of("stalled")
			if c.Queued == 0 || c.Queued > 60 || c.Lost[losses.QueueFull] != n-uint64(c.Queued) || c.Delivered != 0 {
				t.Errorf("%+v", c)
			}
			a.Close()
			resume()
			eventually(t, "the end", func() bool { return len(sink.ended("stalled")) == 1 })
			if got := sink.count("stalled"); got != c.Queued {
				t.Errorf("%d spans delivered, %d were queued", got, c.Queued)
			}
		})
	}
}

// TestStalledEnds: connections whose end waits for the sink count as open, so
// that a guest cannot pile them up.
func TestStalledEnds(t *testing.T) {
	sink := newRecord()
	f := forward(t, sink, Limits{QueuedSpans: 1, MaxConnections: 3})
	resume := sink.stall("pod")
	defer resume()
	for range 50 {
		a := connect(t, f, pod("pod"))
		_ = a.SetWriteDeadline(time.Now().Add(patience))
		_, _ = a.Write(sampleFrame(t))
		a.Close()
	}
	eventually(t, "the rest is refused", func() bool {
		c := f.Snapshot().of("pod")
		return c.Accepted+c.Refused[reasonConnections] == 50
	})
	if c := f.Snapshot().of("pod"); c.Connections > 3 || c.Accepted > 6 {
		t.Errorf("%+v", c)
	}
}

// panics is a Sink that panics.
type panics struct{ *record }

func (p panics) Span(conn ConnInfo, span *span.Span) {
	if span.Name == "bad" || p.count(conn.Sandbox)%2 == 0 {
		p.record.Span(conn, span)
		panic("sink")
	}
	p.record.Span(conn, span)
}

func TestPanickingSink(t *testing.T) {
	sink := panics{newRecord()}
	f := forward(t, sink, Limits{})
	a := connect(t, f, pod("pod"))
	for range 10 {
		a.send(sampleFrame(t))
	}
	a.Close()
	eventually(t, "the end", func() bool { return len(sink.ended("pod")) == 1 })
	if c := f.Snapshot().of("pod"); c.Delivered != 5 || c.Lost[losses.Panic] != 5 {
		t.Errorf("%+v", c)
	}
}

// TestRates: a sandbox gets its share and no more; connecting again does not change that.
func TestRates(t *testing.T) {
	b := sampleFrame(t)
	var s span.Span
	if err := agent.NewDecoder(agent.Options{}).Decode(b[prefixSize:], &s); err != nil {
		t.Fatal(err)
	}
	cost := max(len(b)-prefixSize, s.Cost())
	for reason, opts := range map[losses.Reason]Limits{
		losses.SpanRate: {SpansPerSecond: 1, SpanBurst: 10},
		losses.ByteRate: {Wire: agent.Options{MaxFrame: cost, Options: span.Options{MaxCost: cost}}, BytesPerSecond: 1, ByteBurst: 10 * cost},
	} {
		t.Run(reason.String(), func(t *testing.T) {
			sink := newRecord()
			began := time.Now()
			f := forward(t, sink, opts)
			const n = 30 // the limit on open connections
			for i := range n {
				a := connect(t, f, pod("greedy"))
				a.send(b)
				a.Close()
				eventually(t, "the end", func() bool { return len(sink.ended("greedy")) == i+1 })
			}
			c := f.Snapshot().of("greedy")
			share := 11 + uint64(time.Since(began)/time.Second)
			if c.total() != n || c.Lost[reason] != n-c.Delivered || c.Delivered < 10 || c.Delivered > share {
				t.Errorf("%+v", c)
			}
			other := connect(t, f, pod("other"))
			other.send(b)
			eventually(t, "the other's span", func() bool { return sink.count("other") == 1 })
		})
	}
}

// laborious is a Sink that uses a millisecond of processor time per span.
type laborious struct{ counting }

func (l *laborious) Span(conn ConnInfo, span *span.Span) {
	for end := threadTime() + time.Millisecond; threadTime() < end; {
	}
	l.counting.Span(conn, span)
}

// TestCPU: a sandbox gets its share of a processor, whatever the work is, and is still read;
// another loses nothing.
func TestCPU(t *testing.T) {
	sink := new(laborious)
	began := time.Now()
	f := forward(t, sink, Limits{CPUPercent: 1, CPUBurst: 20 * time.Millisecond})
	a, other := connect(t, f, pod("laborious")), connect(t, f, pod("other"))
	b := sampleFrame(t)
	const n = 500
	for range n {
		sent := f.Snapshot().of("laborious").total()
		a.send(b)
		eventually(t, "the span is accounted for", func() bool {
			c := f.Snapshot().of("laborious")
			return c.total() > sent && c.Queued == 0
		})
	}
	other.send(b)
	eventually(t, "the other's span", func() bool { return f.Snapshot().of("other").Delivered == 1 })
	c := f.Snapshot().of("laborious")
	// 20 ms at once and 1 % of the time; a span that changes its thread is charged less.
	share := 50 + uint64(time.Since(began)/(100*time.Millisecond))
	if c.Delivered < 10 || c.Delivered > share || c.Lost[losses.CPU] != n-c.Delivered {
		t.Errorf("%+v", c)
	}
	if !a.isOpen() {
		t.Error("the connection was closed")
	}
}

// TestPaced: sending faster than the pace delays the sender, costs the Forwarder no time, and
// loses nothing.
func TestPaced(t *testing.T) {
	sink := newRecord()
	f := forward(t, sink, Limits{ReadBytesPerSecond: 1 << 20})
	a := connect(t, f, pod("paced"))
	began := time.Now()
	const empty = 3 << 11 // each counts for minFrame: 3 MiB
	a.send(make([]byte, empty*prefixSize))
	eventually(t, "all is read", func() bool { return f.Snapshot().of("paced").total() == empty })
	if took := time.Since(began); took < time.Second {
		t.Errorf("read in %v what takes two seconds", took)
	}
}

func TestTooMany(t *testing.T) {
	sink := newRecord()
	f := forward(t, sink, Limits{MaxSandboxes: 3, MaxConnections: 2})
	b := sampleFrame(t)
	var agents []peer
	for i := range 3 {
		for range 2 {
			agents = append(agents, connect(t, f, listen.Origin{CID: uint32(10 + i)}))
		}
	}
	for _, from := range []listen.Origin{{CID: 10}, {CID: 13}, {Sandbox: "new"}} {
		if connect(t, f, from).isOpen() {
			t.Errorf("a connection of %+v is open beyond the limits", from)
		}
	}
	for _, a := range agents {
		a.send(b)
	}
	eventually(t, "the others' spans", func() bool { return sink.count("") == len(agents) })
	n := f.Snapshot()
	if n.Connections != 6 || n.Refused[reasonConnections] != 1 || n.Refused[reasonSandboxes] != 2 || len(n.Sandboxes) != 3 {
		t.Errorf("%+v", n)
	}
	for i, s := range n.Sandboxes {
		if s.CID != uint32(10+i) || s.Sandbox != "" || s.Delivered != 2 {
			t.Errorf("sandbox %d: %+v", i, s)
		}
	}
	// Long idle sandboxes make room, and their counts stay.
	for _, a := range agents {
		a.Close()
	}
	eventually(t, "all have ended", func() bool { return f.Snapshot().Connections == 0 })
	eventually(t, "nothing is left to deliver", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		over := true
		for _, s := range f.sandboxes {
			s.idle = time.Now().Add(-2 * linger)
			over = over && s.forgettable()
		}
		return over
	})
	eventually(t, "there is room", func() bool {
		a := connect(t, f, pod("new"))
		return a.isOpen()
	})
	if n := f.Snapshot(); n.Delivered != uint64(len(agents)) || len(n.Sandboxes) != 1 {
		t.Errorf("%+v", n)
	}
}

// TestClose: everything sent before it is delivered, even if the VM lives on.
func TestClose(t *testing.T) {
	sink := newRecord()
	f := forward(t, sink, Limits{})
	data := captured.Frames(t, captureOld)
	agents := make(map[string]peer)
	for i := range 8 {
		name := fmt.Sprint("pod-", i)
		a := connect(t, f, pod(name))
		a.send(data)
		agents[name] = a
	}
	silent := connect(t, f, pod("silent"))
	if err := closeForwarder(f); err != nil {
		t.Error(err)
	}
	for name, a := range agents {
		if got := sink.count(name); got != spansOld {
			t.Errorf("%s: %d spans of %d", name, got, spansOld)
		}
		if ends := sink.ended(name); len(ends) != 1 || !errors.Is(ends[0], errClosed) {
			t.Errorf("%s ended with %v", name, ends)
		}
		if a.isOpen() {
			t.Errorf("%s is open", name)
		}
	}
	if silent.isOpen() || connect(t, f, pod("late")).isOpen() {
		t.Error("a connection is open after Close")
	}
	if f.Snapshot().Refused[reasonClosed] != 1 {
		t.Error("the late connection is not counted")
	}
	if err := f.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestCloseWaits: an agent has Silence to say its last words.
func TestCloseWaits(t *testing.T) {
	sink := newRecord()
	f := New(Options{Sink: sink, Silence: time.Minute})
	a := connect(t, f, pod("late"))
	closed := make(chan error)
	go func() { closed <- f.Close(context.Background()) }()
	<-f.closing
	time.Sleep(200 * time.Millisecond) // more than the default
	a.send(captured.Frames(t, captureOld))
	a.Close()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got := sink.count("late"); got != spansOld {
		t.Errorf("%d spans of %d", got, spansOld)
	}
}

// lateRead is a connection whose first read does not get a processor until the deadline has
// passed.
type lateRead struct {
	*net.UnixConn
	later bool
}

func (c *lateRead) Read(b []byte) (int, error) {
	if !c.later {
		c.later = true
		return 0, os.ErrDeadlineExceeded
	}
	return c.UnixConn.Read(b)
}

// TestCloseReadsWhatIsThere: what has come before Close is delivered, however late the process
// gets to read it.
func TestCloseReadsWhatIsThere(t *testing.T) {
	sink := newRecord()
	f := New(Options{Sink: sink})
	vm, ours := pair(t)
	defer vm.Close()
	if _, err := vm.Write(captured.Frames(t, captureOld)); err != nil {
		t.Fatal(err)
	}
	f.Take(&lateRead{UnixConn: ours}, pod("p"))
	if err := closeForwarder(f); err != nil {
		t.Error(err)
	}
	if got := sink.count("p"); got != spansOld {
		t.Errorf("%d spans of %d", got, spansOld)
	}
}

// TestCloseInTime: neither a flood nor a stalled sink delays Close, and losses are counted.
func TestCloseInTime(t *testing.T) {
	t.Run("flood", func(t *testing.T) {
		f := forward(t, newRecord(), Limits{})
		a := connect(t, f, pod("flood"))
		var flooding sync.WaitGroup
		flooding.Go(func() {
			b := bytes.Repeat(sampleFrame(t), 100)
			for {
				if _, err := a.Write(b); err != nil {
					return
				}
			}
		})
		eventually(t, "the flood", func() bool { return f.Snapshot().Bytes > 1<<20 })
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_ = f.Close(ctx)
		if f.Snapshot().Connections != 0 {
			t.Error("the connection is open")
		}
		flooding.Wait()
	})
	t.Run("stalled sink", func(t *testing.T) {
		sink := newRecord()
		f := forward(t, sink, Limits{})
		resume := sink.stall("stalled")
		defer resume()
		a := connect(t, f, pod("stalled"))
		a.send(captured.Frames(t, captureOld))
		other := connect(t, f, pod("other"))
		other.send(captured.Frames(t, captureOld))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		closed := make(chan error)
		go func() { closed <- f.Close(ctx) }()
		eventually(t, "the stalled one's spans are read", func() bool { return f.Snapshot().of("stalled").total() == spansOld })
		eventually(t, "the other's spans", func() bool { return sink.count("other") == spansOld })
		eventually(t, "the sink to have one of the stalled one's", func() bool {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			return sink.busy[pod("stalled")]
		})
		cancel()
		if err := <-closed; !errors.Is(err, context.Canceled) {
			t.Errorf("Close: %v", err)
		}
		resume()
		eventually(t, "the rest is counted", func() bool {
			c := f.Snapshot().of("stalled")
			return c.Queued == 0 && c.Delivered+c.Lost[losses.Shutdown] == spansOld && c.Lost[losses.Shutdown] == spansOld-1
		})
	})
}
