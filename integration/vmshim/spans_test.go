package vmshim_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// A host receives what the agents of a rig send to their hosts: as Kata's
// forwarder must, it listens beside each VM's hybrid socket, under the name that
// ends in the port.
type host struct {
	t      *testing.T
	served sync.WaitGroup

	mu    sync.Mutex
	conns map[string]*received // by sandbox
}

// received is what one agent sent.
type received struct {
	spans     []span.Span // in their order
	encodings []agent.Encoding
	leaks     bool // a secret was among what was sent
	ended     bool
}

// receive starts a host that lives as long as the test.
func receive(t *testing.T, r *rig.Rig) *host {
	h := &host{t: t, conns: map[string]*received{}}
	ctx, cancel := context.WithCancel(context.Background())
	h.served.Go(func() { h.watch(ctx, filepath.Join(r.Dir, "run/vc/vm")) })
	t.Cleanup(func() { cancel(); h.served.Wait() })
	return h
}

// watch listens in each directory that appears.
func (h *host) watch(ctx context.Context, dir string) {
	seen := map[string]bool{}
	for ctx.Err() == nil {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if seen[e.Name()] {
				continue
			}
			seen[e.Name()] = true
			listener, err := listenIn(filepath.Join(dir, e.Name()), "clh.sock_10240")
			if err != nil {
				h.t.Error(err)
				continue
			}
			h.served.Go(func() { h.accept(listener, e.Name()) })
			h.served.Go(func() { <-ctx.Done(); listener.Close() })
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// listenIn listens on a socket whose path may be longer than a socket's may be.
func listenIn(dir, name string) (net.Listener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		listener.SetUnlinkOnClose(false) // it goes with the VM's directory
	}
	return listener, err
}

func (h *host) accept(listener net.Listener, sandbox string) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		h.served.Go(func() { h.read(conn, sandbox) })
	}
}

func (h *host) read(conn net.Conn, sandbox string) {
	defer conn.Close()
	h.mu.Lock()
	if h.conns[sandbox] != nil {
		h.t.Errorf("the agent of sandbox %s connected twice", sandbox)
	}
	got := &received{}
	h.conns[sandbox] = got
	h.mu.Unlock()

	reader := agent.NewReader(conn, agent.Options{})
	decoder := agent.NewDecoder(agent.Options{})
	for {
		payload, err := reader.Next()
		if err != nil {
			if err != io.EOF {
				h.t.Errorf("spans of sandbox %s: %v", sandbox, err)
			}
			h.mu.Lock()
			got.ended = true
			h.mu.Unlock()
			return
		}
		var span span.Span
		if err := decoder.Decode(payload, &span); err != nil {
			h.t.Errorf("span of sandbox %s: %v", sandbox, err)
		}
		h.mu.Lock()
		got.spans = append(got.spans, span)
		got.encodings = append(got.encodings, agent.EncodingOf(payload))
		got.leaks = got.leaks || bytes.Contains(payload, []byte("SECRET=hunter2"))
		h.mu.Unlock()
	}
}

// wait returns all that the agent of a sandbox sent, when its VM has ended.
func (h *host) wait(sandbox string) *received {
	h.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		h.mu.Lock()
		got := h.conns[sandbox]
		done := got != nil && got.ended
		h.mu.Unlock()
		if done {
			return got
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("the VM of sandbox %s has not ended its connection; connected: %v", sandbox, got != nil)
		}
	}
}

// has reports whether the agent of a sandbox has sent a span of that name by now.
func (h *host) has(sandbox, name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	got := h.conns[sandbox]
	return got != nil && got.named(name) != nil
}

// calls are the RPCs among the spans, in the order of their beginning, without
// those that a client repeats at its own pace: each as its name, container and
// exec id.
func (r *received) calls() []string {
	var roots []span.Span
	for _, s := range r.spans {
		if isRPC(s.Name) && s.Name != "stats_container" {
			roots = append(roots, s)
		}
	}
	slices.SortStableFunc(roots, func(a, b span.Span) int { return int(int64(a.Start - b.Start)) })
	var calls []string
	for _, s := range roots {
		calls = append(calls, strings.TrimRight(s.Name+" "+s.ContainerID+" "+s.ExecID, " "))
	}
	return calls
}

func isRPC(name string) bool {
	return slices.Contains([]string{
		"create_sandbox", "destroy_sandbox", "create_container", "start_container", "remove_container",
		"exec_process", "signal_process", "wait_process", "update_container", "stats_container",
		"pause_container", "resume_container", "close_stdin", "tty_win_resize", "update_interface",
		"update_routes", "get_guest_details", "remove_stale_virtiofs_share_mounts",
	}, name)
}

// named returns the first span of that name.
func (r *received) named(name string) *span.Span {
	for i := range r.spans {
		if r.spans[i].Name == name {
			return &r.spans[i]
		}
	}
	return nil
}
