package explain_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/shimtrace/shimtrace/integration/cri"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/testkit"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

func TestMain(m *testing.M) {
	code := m.Run()
	traced.Clean()
	os.Exit(code)
}

// endpoint is shimtrace's own, to which containerd sends its spans, in the rig's network
// namespace.
const endpoint = "127.0.0.1:4317"

// site is a containerd that traces itself, with shimtrace in it.
type site struct {
	*testing.T
	*traced.Install
	cgroup string // that pods are in
}

func start(t *testing.T, opts traced.Options) *site {
	t.Helper()
	opts.Config += "\n[otlp]\nlisten = ['" + endpoint + "']\n"
	// In milliseconds: what is not taken at once is sent again for a minute, not for 10 s. While
	// containerd's exporter waits for that, its queue of 2048 spans would be full after some pods,
	// and it would drop the rest.
	opts.Env = append(opts.Env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_BSP_SCHEDULE_DELAY=20", "OTEL_EXPORTER_OTLP_TIMEOUT=60000", "OTEL_BSP_MAX_QUEUE_SIZE=65536")
	s := &site{T: t, Install: traced.Start(t, opts)}
	s.cgroup = "/" + s.Rig.Name
	s.collect()
	s.connected()
	return s
}

// connected returns when containerd's spans arrive. Its exporter tries again seconds later
// where nobody listened, its connection after a pause that grows, and what it could not send
// in 10 s it drops.
func (s *site) connected() {
	s.Helper()
	listening, asked := time.Now(), time.Time{}
	testkit.Until(s.T, "containerd's spans to arrive", func() bool {
		if time.Since(asked) > time.Second/4 { // its queue is bounded, too
			asked = time.Now()
			check(s.T, s.Rig.CRI().Answers(s.Context())) // which has a span
		}
		all, err := s.SpansBut(losses.KeptOut.String())
		check(s.T, err)
		return slices.ContainsFunc(all, func(span otlprecv.Span) bool {
			return span.Service() == "containerd" && span.Start().After(listening)
		})
	})
}

// collect runs the host's endpoint until the test's end, and returns when it listens.
func (s *site) collect() {
	s.Helper()
	s.Serve(s.T)
	testkit.Until(s.T, "the endpoint to listen", func() bool {
		for _, p := range traced.Find(s.Rig, traced.Collect) {
			sockets, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", p.PID))
			if bytes.Contains(sockets, []byte("0100007F:10DD 00000000:0000 0A")) {
				return true
			}
		}
		return false
	})
}

var check = testkit.Check

// explained explains the start of the sandbox with that id, once ready says that
// everything of it is there.
func (s *site) explained(id string, ready func(*explain.Explanation) bool) *explain.Explanation {
	s.Helper()
	var e *explain.Explanation
	defer func() {
		if s.Failed() && e != nil {
			s.Logf("so far: %s", e)
		}
	}()
	testkit.Until(s.T, "the spans of "+id, func() bool {
		var err error
		e, err = s.Explain(id)
		check(s.T, err)
		return e != nil && ready(e)
	})
	return e
}

// started reports whether a container has started.
func started(e *explain.Explanation) bool { return e.Start != nil && e.Start.Target != nil }

// called reports whether a container has started, and what the caller did is there, as is the
// evidence that the sandbox's start has.
func called(e *explain.Explanation) bool {
	if !started(e) || e.Story.Startup == 0 {
		return false
	}
	for n := e.Start.Target; n != nil; n = n.Parent() {
		if n.Span != nil && n.Maker() == waterfall.ByOthers {
			return true
		}
	}
	return false
}

// pod is a pod that one client starts, which, like kubelet, makes one trace of it.
type pod struct {
	*site
	name    string
	ctx     context.Context
	sandbox *cri.Sandbox
}

// pod starts a sandbox with a network of its own.
func (s *site) pod(name string) *pod {
	s.Helper()
	id := sha256.Sum256([]byte(s.Rig.Name + name))
	return s.podOf(metadata.AppendToOutgoingContext(s.Context(), "traceparent", fmt.Sprintf("00-%x-%x-01", id[:16], id[16:24])), name)
}

// podOf is pod, by a client with that context.
func (s *site) podOf(ctx context.Context, name string) *pod {
	s.Helper()
	p := &pod{site: s, name: name, ctx: ctx}
	var err error
	p.sandbox, err = s.Rig.CRI().Run(p.ctx, cri.Pod{
		Name: name, Runtime: s.Runtime.Name, Logs: filepath.Join(s.Rig.Dir, "logs"), Cgroup: s.cgroup, Network: true,
	})
	check(s.T, err)
	return p
}

// start starts the pod's container.
func (p *pod) start(image string) error {
	_, err := p.sandbox.Start(p.ctx, "app", image, rig.Sleep...)
	return err
}

// explained explains the pod's start, once the spans are there of it, of what was before
// and of its container.
func (p *pod) explained() *explain.Explanation {
	p.Helper()
	return p.site.explained(p.sandbox.ID, func(e *explain.Explanation) bool {
		if e.Start == nil || e.Start.Target == nil || e.Start.Target.Span.Container() == p.sandbox.ID {
			return false
		}
		begun := false
		for _, g := range e.Start.Path {
			begun = begun || g.Node != nil && (g.Node.Name() == "inner start" || g.Node.Name() == "shim start")
		}
		return begun && called(e)
	})
}
