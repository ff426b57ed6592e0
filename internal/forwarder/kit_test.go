package forwarder

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// Eventually, Connect and Send are for the tests in package forwarder_test as well.
var Eventually = eventually

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The captures of real agents, and their numbers of spans.
const (
	capturePod     = "kata-4.1.0-pod.agent"
	capturePodRS   = "kata-4.1.0-rs-pod.agent"
	captureOld     = "kata-3.28.0-agent"
	spansPod       = 168
	spansPodRS     = 122
	spansOld       = 60
	patience       = testkit.Patience
	prefixSize     = 8
	oversizedFrame = 1 << 63
)

// frames splits the bytes of a connection, lengths included.
func frames(data []byte) (all [][]byte) {
	for len(data) > 0 {
		n := prefixSize + binary.BigEndian.Uint64(data)
		all, data = append(all, data[:n]), data[n:]
	}
	return all
}

// frame makes a frame of a payload.
func frame(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(len(payload))), payload...)
}

// peer is a VM's end of a connection that the Forwarder has taken.
type peer struct {
	tb testing.TB
	*net.UnixConn
}

// connect gives the Forwarder a connection of a sandbox.
func connect(tb testing.TB, f *Forwarder, from listen.Origin) peer {
	tb.Helper()
	return peer{tb, Connect(tb, f, from)}
}

// Connect gives the Forwarder a connection, and returns the VM's end.
func Connect(tb testing.TB, f *Forwarder, from listen.Origin) *net.UnixConn {
	tb.Helper()
	vm, ours := pair(tb)
	f.Take(ours, from)
	tb.Cleanup(func() { vm.Close() })
	return vm
}

// pair returns both ends of a connection.
func pair(tb testing.TB) (a, b *net.UnixConn) {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(file)
		file.Close()
		if err != nil {
			tb.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

func pod(name string) listen.Origin { return listen.Origin{Sandbox: name} }

func (a peer) send(b []byte) {
	a.tb.Helper()
	Send(a.tb, a.UnixConn, b)
}

// Send writes, and fails if nobody reads.
func Send(tb testing.TB, conn *net.UnixConn, b []byte) {
	tb.Helper()
	_ = conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := conn.Write(b); err != nil {
		tb.Fatal("the connection is not read: ", err)
	}
}

// isOpen reports whether the Forwarder has not closed the connection. Nothing is ever said on
// it, so that there is something to be read only when it is closed.
func (a peer) isOpen() bool { return !host.Ready(a.UnixConn) }

// record is a Sink that keeps what it gets.
type record struct {
	mu    sync.Mutex
	spans map[string][]*span.Span // by sandbox
	ends  map[string][]error
	conns map[string]ConnInfo // the last
	hold  map[string]chan struct{}
	bad   bool // a call came out of turn
	busy  map[listen.Origin]bool
}

func newRecord() *record {
	return &record{
		spans: make(map[string][]*span.Span), ends: make(map[string][]error),
		conns: make(map[string]ConnInfo), hold: make(map[string]chan struct{}), busy: make(map[listen.Origin]bool),
	}
}

func (r *record) enter(conn ConnInfo) {
	of := listen.Origin{Sandbox: conn.Sandbox, CID: conn.CID}
	r.mu.Lock()
	r.bad = r.bad || r.busy[of]
	r.busy[of] = true
	r.conns[conn.Sandbox] = conn
	hold := r.hold[conn.Sandbox]
	r.mu.Unlock()
	if hold != nil {
		<-hold
	}
	r.mu.Lock()
	r.busy[of] = false
}

func (r *record) Span(conn ConnInfo, span *span.Span) {
	r.enter(conn)
	defer r.mu.Unlock()
	r.spans[conn.Sandbox] = append(r.spans[conn.Sandbox], span)
}

func (r *record) Closed(conn ConnInfo, err error) {
	r.enter(conn)
	defer r.mu.Unlock()
	r.ends[conn.Sandbox] = append(r.ends[conn.Sandbox], err)
}

// stall blocks a sandbox's calls until the returned function is called.
func (r *record) stall(sandbox string) (resume func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hold := make(chan struct{})
	r.hold[sandbox] = hold
	return sync.OnceFunc(func() {
		r.mu.Lock()
		delete(r.hold, sandbox)
		r.mu.Unlock()
		close(hold)
	})
}

func (r *record) count(sandbox string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.spans[sandbox])
}

func (r *record) ended(sandbox string) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ends[sandbox]
}

// forward returns a Forwarder that is closed when the test ends. Then its sink's calls must
// have come in order, and its counts must add up.
func forward(tb testing.TB, sink Sink, opts Limits) *Forwarder {
	tb.Helper()
	f := New(Options{Sink: sink, Limits: opts})
	tb.Cleanup(func() {
		closeForwarder(f)
		if r, ok := sink.(*record); ok && r.bad {
			tb.Error("the sink was called twice at a time for one sandbox")
		}
		if n := f.Snapshot(); n.Queued != 0 || n.Connections != 0 {
			tb.Errorf("after Close: %+v", n.Counts)
		}
	})
	return f
}

func closeForwarder(f *Forwarder) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return f.Close(ctx)
}

var eventually = testkit.Until

// of returns a sandbox's counts.
func (s Snapshot) of(sandbox string) Counts {
	for _, c := range s.Sandboxes {
		if c.Sandbox == sandbox {
			return c.Counts
		}
	}
	return Counts{}
}

// total is how many frames the counts account for.
func (c Counts) total() (n uint64) {
	n = c.Delivered + uint64(c.Queued)
	for _, lost := range c.Lost {
		n += lost
	}
	return n
}

// sampleFrame is one span as a real agent sends it, short.
func sampleFrame(tb testing.TB) []byte {
	best := []byte(nil)
	for _, f := range frames(captured.Frames(tb, capturePod)) {
		if best == nil || len(f) < len(best) {
			best = f
		}
	}
	return bytes.Clone(best)
}
