package route

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

const patience = testkit.Patience

var eventually = testkit.Until

// hosted is a running Router.
type hosted struct {
	*Router
	dir   string
	drops *losses.Tally
	// end ends it as its process does.
	end func()
}

func startHost(t *testing.T, dir string, opts RouterOptions) *hosted {
	t.Helper()
	h := &hosted{dir: dir, drops: new(losses.Tally)}
	opts.Losses = h.drops
	opts.Warn = func(err error) { t.Log("router: ", err) }
	h.Router = NewRouter(opts)
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { h.Serve(ctx, l) })
	h.end = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		bound, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		h.Close(bound)
	})
	t.Cleanup(h.end)
	return h
}

// sandbox is a relay's end.
type sandbox struct {
	*Link
	id   string
	stop func()

	mu      sync.Mutex
	names   []string
	pause   chan struct{} // not nil: spans wait until it is closed
	lost    losses.Tally
	ensured int
	warned  []error
}

func startSandbox(t *testing.T, dir, id string, pids ...int) *sandbox {
	t.Helper()
	s := &sandbox{id: id}
	s.Link = NewLink(LinkOptions{
		Dir: dir, Sandbox: id,
		Ensure: func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ensured++
		},
		Losses: &s.lost,
		Warn: func(err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.warned = append(s.warned, err)
		},
	}, s.span)
	s.Processes(named(t, pids)...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ctx)
	}()
	s.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(s.stop)
	return s
}

// named are processes as a relay has found them.
func named(t *testing.T, pids []int) (all []host.Process) {
	t.Helper()
	for _, pid := range pids {
		p, err := host.Proc("/proc").Process(pid)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func (s *sandbox) span(span *span.Span) {
	s.mu.Lock()
	pause := s.pause
	s.mu.Unlock()
	if pause != nil {
		<-pause
	}
	if span.Name == "panic" {
		panic("on purpose")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, span.Name)
}

func (s *sandbox) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.names...)
}

// sandbox starts a relay and waits until the host knows what it says.
func (h *hosted) sandbox(t *testing.T, id string, pids ...int) *sandbox {
	t.Helper()
	before := h.listed(id)
	s := startSandbox(t, h.dir, id, pids...)
	eventually(t, "the relay of "+id+" is known", func() bool { return h.listed(id) == before+1 })
	return s
}

// listed counts the relays of a sandbox whose claims have been registered.
func (h *hosted) listed(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.Router.sandbox[id])
}

// arrived says that a process has connected, as Guard does.
func (h *hosted) arrived(t *testing.T, from, to netip.AddrPort) {
	t.Helper()
	f := h.sockets.find([]netip.AddrPort{from}, to)[0]
	if !h.judge(f, nil) {
		t.Fatalf("%s is not listened to: %v", from, f.err)
	}
	h.opened(from, f.socket)
}

var nowhere = netip.MustParseAddrPort("127.0.0.1:1")

// spans makes spans of a trace with the names.
func spans(trace byte, names ...string) (all []span.Span) {
	for i, name := range names {
		all = append(all, span.Span{TraceID: traceID{trace}, SpanID: [8]byte{trace, byte(i + 1)}, Name: name})
	}
	return all
}

// of puts the sandbox's id into the first of the spans.
func of(sandbox string, all []span.Span) []span.Span {
	all[0].Sandbox = sandbox
	return all
}

// numbered are n names.
func numbered(prefix string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%d", prefix, i))
	}
	return names
}

// same fails unless the sandbox gets these spans, in this order, and no others.
func (s *sandbox) same(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, "the spans of "+s.id+" arrive", func() bool { return len(s.got()) >= len(want) })
	got := s.got()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s got %q, want %q", s.id, got, want)
	}
}

// lostNothing fails if the Router lost anything, or has anything left.
func (h *hosted) lostNothing(t *testing.T) {
	t.Helper()
	eventually(t, "all is sent", func() bool {
		s := h.Snapshot()
		return s.Sent == s.Arrived && s.Held+s.Queued == 0
	})
	if s := h.Snapshot(); len(s.Lost) > 0 {
		t.Errorf("%+v", s)
	}
}

// leftBehind reports whether there is a file.
func leftBehind(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}
