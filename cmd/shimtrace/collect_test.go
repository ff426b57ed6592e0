package main

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	local "github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/host/hosttest"
)

// TestCollectTwoSandboxes: the runtimes of two pods post at the same time, each in its
// own way; each relay gets exactly its own spans, unchanged.
func TestCollectTwoSandboxes(t *testing.T) {
	r := startReceive(t)
	pods := load(t, goPod, rustPod)
	var relays []*fakeRelay
	for _, p := range pods {
		relays = append(relays, r.relay(t, p.sandbox))
	}
	r.relay(t, "a third one")
	var posting sync.WaitGroup
	for _, p := range pods {
		posting.Go(func() { p.postAll(t, r.url) })
	}
	posting.Wait()
	for i, p := range pods {
		relays[i].arrives(t, p.spans)
		relays[i].leave()
		relays[i].gets(t, p.spans)
	}
	r.stop()
	r.says("569 of the exporter's own left out")
	if lost := drops(t, r.state); len(lost) > 0 || strings.Contains(r.stderr.String(), "lost") {
		t.Errorf("lost %v", lost)
	}
	if _, err := os.Lstat(filepath.Join(r.state, "collect", "link.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// TestCollectBeforeRelay: spans posted before their sandbox's relay exists wait for it;
// those of no sandbox are counted.
func TestCollectBeforeRelay(t *testing.T) {
	r := startReceive(t)
	pods := load(t, goPod, rustPod)
	client := pods[0].client(t)
	for _, body := range pods[0].bodies[:20] {
		if err := pods[0].post(client, r.url, body); err != nil {
			t.Fatal(err)
		}
	}
	// They wait for five seconds.
	relay := r.relay(t, pods[0].sandbox)
	relay.arrives(t, pods[0].spans[:20])
	pods[1].postAll(t, r.url)
	// The endpoint ends before it gives up waiting, as a rule.
	r.stop()
	lost := drops(t, r.state)
	if len(lost) != 1 || lost["runtime: unknown_sandbox"] != len(pods[1].spans) {
		t.Errorf("lost %v, want %d of unknown sandboxes", lost, len(pods[1].spans))
	}
}

// TestCollectStalledRelay: a relay that takes nothing, or is gone, affects neither
// other relays nor the runtimes that post.
func TestCollectStalledRelay(t *testing.T) {
	r := startReceive(t)
	pods := load(t, goPod, rustPod)
	stalled, gone := r.relay(t, pods[1].sandbox), r.relay(t, "gone")
	stalled.mu.Lock()
	stalled.stall = make(chan struct{})
	stalled.mu.Unlock()
	relay := r.relay(t, pods[0].sandbox)
	pods[1].postAll(t, r.url)
	gone.leave()
	pods[0].postAll(t, r.url)
	relay.arrives(t, pods[0].spans)
	relay.leave()
	close(stalled.stall)
	stalled.arrives(t, pods[1].spans)
	stalled.leave()
	r.stop()
}

// TestCollectLiar: a runtime that claims to be another sandbox's reaches only its own
// relay.
func TestCollectLiar(t *testing.T) {
	r := startReceive(t)
	pods := load(t, goPod, rustPod)
	victims := []*fakeRelay{r.relay(t, pods[0].sandbox), r.relay(t, pods[1].sandbox)}
	liar := r.relay(t, "liar", os.Getpid()) // the test posts
	// Until the endpoint knows whose process it is, there is no proof.
	r.says("3 sandboxes")
	var want []trace.SpanID
	for _, p := range pods {
		p.postAll(t, r.url)
		want = append(want, p.spans...)
	}
	eventually(t, "all arrive", func() bool { return len(liar.got()) == len(want) })
	liar.gets(t, want)
	for i, v := range victims {
		if n := len(v.got()); n > 0 {
			t.Errorf("%d spans reached sandbox %s", n, pods[i].sandbox)
		}
	}
	r.stop()
}

// TestCollectStranger: another user's process is ignored.
func TestCollectStranger(t *testing.T) {
	r := startReceive(t)
	var err error
	<-hosttest.AsUser(t, hosttest.Nobody, func() {
		var conn net.Conn
		if conn, err = net.Dial("tcp", r.at); err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(forwardPatience))
		_, err = conn.Read(make([]byte, 1))
	})
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the connection was not closed: %v", err)
	}
	r.says("a process of user 65534 is not listened to")
	r.stop()
	r.says("1 connections not listened to (stranger: 1)")
	// Otherwise anybody could make up losses.
	if lost := drops(t, r.state); len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
}

// TestCollectOnce: a second process exits at once, and so does one whose port is taken.
func TestCollectOnce(t *testing.T) {
	config, state, at := receiveConfig(t)
	first := newTool(t, config, "collect")
	first.start()
	first.says("runtimes may post")
	second := newTool(t, config, "collect")
	second.start()
	second.ends(console.OK)
	second.says("another process collects for this host already")
	other := newTool(t, strings.Replace(config, state, t.TempDir(), 1), "collect")
	other.start()
	other.ends(console.Failure)
	other.says("address already in use")
	first.stop()
	if conn, err := net.Dial("tcp", at); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
}

// TestCollectIdle: it ends by itself without relays, and not with one.
func TestCollectIdle(t *testing.T) {
	for idle := 300 * time.Millisecond; ; idle *= 4 {
		r := startReceive(t, "--idle", idle.String())
		ended := func() bool { return local.Proc("/proc").State(r.cmd.Process.Pid) == 'Z' }
		relay := r.relay(t, "a")
		linked := func() bool { return strings.Contains(r.stderr.String(), "1 sandbox") }
		eventually(t, "it has the relay, or has ended before that came", func() bool { return linked() || ended() })
		if !linked() {
			r.ends(console.OK)
			continue // the relay had no processor for so long
		}
		time.Sleep(2 * idle)
		if ended() {
			t.Error("it ended although there is a relay")
		}
		relay.leave()
		r.ends(console.OK)
		return
	}
}

// TestCollectUsage: mistakes on the command line are reported.
func TestCollectUsage(t *testing.T) {
	for _, args := range [][]string{
		{"x"}, {"--idle", "-1s"}, {"--listen", "0.0.0.0:276"}, {"--listen", "localhost:276"}, {"--listen", "276"},
	} {
		p := newTool(t, "", slices.Concat([]string{"collect"}, args)...)
		p.start()
		p.ends(console.Usage)
	}
}

// TestCollectDrainsLastPost: a post right before the runtime and its relay end is not
// lost, however quickly they end.
func TestCollectDrainsLastPost(t *testing.T) {
	r := startReceive(t)
	p := load(t, rustPod)[0]
	for range 5 {
		relay := r.relay(t, p.sandbox)
		began := time.Now()
		p.postAll(t, r.url)
		relay.leave()
		t.Logf("%d spans and the end in %v", len(p.spans), time.Since(began))
		relay.gets(t, p.spans)
	}
	r.stop()
}

// TestCollectFollowsConfiguration: the endpoint follows the configured address, and
// also stays at the old one, to which running runtimes post.
func TestCollectFollowsConfiguration(t *testing.T) {
	text, state, at := receiveConfig(t)
	_, _, later := receiveConfig(t)
	tool := newTool(t, text, "collect")
	r := &receiving{tool, state, at, "http://" + at + endpoint.Path}
	r.start()
	r.says("runtimes may post to " + r.url)
	p := load(t, goPod)[0]
	relay := r.relay(t, p.sandbox)
	half := len(p.bodies) / 2
	client := p.client(t)
	for _, body := range p.bodies[:half] {
		if err := p.post(client, r.url, body); err != nil {
			t.Fatal(err)
		}
	}
	tool.rewrite(strings.Replace(text, at, later, 1) + "# longer\n")
	r.says("runtimes may post to http://" + later + endpoint.Path + ", too")
	for i, body := range p.bodies[half:] {
		url := r.url
		if i%2 == 0 {
			url = "http://" + later + endpoint.Path
		}
		if err := p.post(client, url, body); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the spans arrive", func() bool { return len(relay.got()) >= len(p.spans) })
	relay.leave()
	if n := len(relay.got()); n != len(p.spans) {
		t.Errorf("%d spans arrived, want %d", n, len(p.spans))
	}
	r.stop()
	for _, address := range []string{at, later} {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s is still open", address)
		}
	}
}
