package route

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestRouterReplaced: when the endpoint's process ends, relays say so, find the next
// one, and get on.
func TestRouterReplaced(t *testing.T) {
	dir := t.TempDir()
	s := startSandbox(t, dir, "a")
	eventually(t, "somebody is asked for an endpoint", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.ensured > 0
	})
	for _, name := range []string{"first", "second", "third"} {
		h := startHost(t, dir, RouterOptions{Hold: time.Hour})
		eventually(t, "the relay comes", func() bool { return h.listed("a") == 1 })
		h.Take(nowhere, "kata-sb-a", spans(1, name))
		h.end()
		if leftBehind(t, socketPath(dir)) {
			t.Error("the socket is left behind")
		}
	}
	s.same(t, "first", "second", "third")
}

// TestLeaveGetsAll: a relay that leaves gets what has been answered until then, also
// if that has yet to be decoded, and what a connection brings that is still open.
func TestLeaveGetsAll(t *testing.T) {
	e := newEndpoint(t)
	var h *hosted
	settled := false
	h = startHost(t, t.TempDir(), RouterOptions{Settle: func(context.Context) {
		settled = true
		h.Take(nowhere, "kata", of("a", spans(1, "was being decoded")))
	}})
	shim := e.startRuntime(t)
	s := h.sandbox(t, "a", shim.pid)
	h.arrived(t, shim.at, e.at)
	s.pause = make(chan struct{})
	h.Take(shim.at, "kata", spans(1, "first"))
	left := make(chan struct{})
	go func() {
		defer close(left)
		s.Leave(context.Background())
	}()
	eventually(t, "it says so", func() bool { return s.isLeaving() })
	shim.kill()
	time.Sleep(2 * settleGrace) // whatever it does until then is too early
	h.Take(shim.at, "kata", spans(1, "last"))
	h.ended(shim.at)
	close(s.pause)
	<-left
	if !settled {
		t.Error("nobody waited for what is being decoded")
	}
	s.same(t, "first", "last", "was being decoded")
	h.lostNothing(t)
}

// TestLeaveIsBounded: Leave never waits for ever, with and without an endpoint, even a
// stuck one.
func TestLeaveIsBounded(t *testing.T) {
	alone := startSandbox(t, t.TempDir(), "a")
	alone.Leave(context.Background())

	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mute := startSandbox(t, dir, "a")
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	mute.Leave(ctx)
	if ctx.Err() == nil {
		t.Error("an endpoint that says nothing has let it go")
	}
	mute.stop()
}

// TestSlowRelay: a relay that does not read loses what exceeds its queue, counted, and
// holds up nobody.
func TestSlowRelay(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{QueuedBytes: 64 << 10})
	slow, quick := h.sandbox(t, "slow"), h.sandbox(t, "quick")
	slow.mu.Lock()
	slow.pause = make(chan struct{})
	slow.mu.Unlock()
	const posts = 300
	name := strings.Repeat("x", 4<<10)
	for range posts {
		h.Take(nowhere, "kata-sb-slow", spans(1, name))
	}
	h.Take(nowhere, "kata-sb-quick", spans(2, "y"))
	quick.same(t, "y")
	lost := int(h.drops.Of(losses.QueueFull))
	if lost == 0 || lost >= posts {
		t.Errorf("%d of %d are lost", lost, posts)
	}
	close(slow.pause)
	eventually(t, "the others arrive", func() bool { return len(slow.got()) == posts-lost })
	eventually(t, "they are counted", func() bool {
		s := h.Snapshot()
		return s.Sent == uint64(posts-lost+1) && s.Queued == 0
	})
	h.Take(nowhere, "kata-sb-slow", spans(1, "again"))
	eventually(t, "there is room again", func() bool { return len(slow.got()) == posts-lost+1 })
}

// TestRelayGone: what was queued for a relay that ends is counted; others go on.
func TestRelayGone(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	other := h.sandbox(t, "other")
	conn, err := net.Dial("unix", socketPath(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(claimMessage(claim{Sandbox: "gone"})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is known", func() bool { return h.listed("gone") == 1 })
	name := strings.Repeat("x", 64<<10)
	const posts = 30 // more than the socket takes
	for range posts {
		h.Take(nowhere, "kata-sb-gone", spans(1, name))
	}
	conn.Close()
	eventually(t, "it is forgotten", func() bool { return h.Snapshot().Relays == 1 })
	eventually(t, "all is accounted for", func() bool {
		s := h.Snapshot()
		return s.Sent+s.Lost[losses.RelayGone] == posts && s.Queued == 0
	})
	if n := int(h.drops.Of(losses.RelayGone)); n == 0 {
		t.Error("nothing is counted")
	}
	h.Take(nowhere, "kata-sb-gone", spans(1, "later"))
	h.Take(nowhere, "kata-sb-other", spans(2, "y"))
	other.same(t, "y")
	if n := h.Snapshot().Held; n != 1 {
		t.Errorf("%d spans are held, want 1", n)
	}
}

// TestShutdownCounts: spans that an endpoint cannot deliver at its end are counted.
func TestShutdownCounts(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	stuck := h.sandbox(t, "stuck")
	stuck.mu.Lock()
	stuck.pause = make(chan struct{})
	stuck.mu.Unlock()
	name := strings.Repeat("x", 64<<10)
	const posts = 30
	for range posts {
		h.Take(nowhere, "kata-sb-stuck", spans(1, name))
	}
	h.Take(nowhere, "kata", spans(2, "unknown"))
	h.end()
	close(stuck.pause)
	s := h.Snapshot()
	if s.Lost[losses.Shutdown] == 0 || s.Sent+s.Lost[losses.Shutdown] != posts || s.Lost[losses.UnknownSandbox] != 1 || s.Queued+s.Held != 0 {
		t.Errorf("%+v", s)
	}
}

// TestPanicCostsOneSpan: so does a span that cannot be read.
func TestPanicCostsOneSpan(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := startSandbox(t, dir, "a")
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var b []byte
	for _, span := range spans(1, "x", "panic", "y") {
		b, _ = appendSpan(b, &span)
	}
	b = appendMessage(b, kindSpan, []byte("no span"))
	b = appendMessage(b, 'z', []byte("of a later version"))
	for _, span := range spans(1, "z") {
		b, _ = appendSpan(b, &span)
	}
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	s.same(t, "x", "y", "z")
	if s.lost.Of(losses.Panic) != 1 || s.lost.Of(losses.Malformed) != 1 {
		t.Errorf("lost %v", s.lost.Counts())
	}
}

// TestHostileMessages: a message of a length that nobody sends ends the link.
func TestHostileMessages(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{})
	s := h.sandbox(t, "a")
	for name, message := range map[string][]byte{
		"too long":   binary.BigEndian.AppendUint32(nil, 1<<31),
		"empty":      {0, 0, 0, 0, 'c'},
		"no claim":   appendMessage(nil, kindClaim, []byte("{")),
		"of nothing": appendMessage(nil, kindClaim, []byte("{}")),
	} {
		conn, err := net.Dial("unix", socketPath(h.dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(append(message, 'c')); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the link lives: %v", name, err)
		}
		conn.Close()
	}
	h.Take(nowhere, "kata-sb-a", spans(1, "x"))
	s.same(t, "x")
}

func TestTooLarge(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{})
	s := h.sandbox(t, "a")
	h.Take(nowhere, "kata-sb-a", spans(1, "x", strings.Repeat("x", span.MaxSize), "y"))
	s.same(t, "x", "y")
	if n := int(h.drops.Of(losses.TooLarge)); n != 1 {
		t.Errorf("%d are counted, want 1", n)
	}
}

// TestMakeDir: a directory that others can enter is not used.
func TestMakeDir(t *testing.T) {
	dir := t.TempDir() + "/state/runtimes"
	for range 2 {
		if err := MakeDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := MakeDir(dir); err == nil || !strings.Contains(err.Error(), "chmod it to 0700") {
		t.Errorf("%v", err)
	}
}

// TestNothingAfterTheEnd: a relay that has been told the end gets no more spans; later
// ones wait for the sandbox's next relay.
func TestNothingAfterTheEnd(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	conn, err := net.Dial("unix", socketPath(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(appendMessage(claimMessage(claim{Sandbox: "a"}), kindEnd, nil)); err != nil {
		t.Fatal(err)
	}
	messages := receiver{from: conn, most: maxMessage}
	if kind, _, err := messages.next(); err != nil || kind != kindEnd {
		t.Fatalf("%q, %v", kind, err)
	}
	h.Take(nowhere, "kata-sb-a", spans(1, "x"))
	h.sandbox(t, "a").same(t, "x")
	h.lostNothing(t)
}
