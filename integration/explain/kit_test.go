package explain_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/shimtrace/shimtrace/integration/cri"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain"
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
}

func start(t *testing.T, opts traced.Options) *site {
	t.Helper()
	opts.Config += "\n[otlp]\nlisten = ['" + endpoint + "']\n"
	opts.Env = append(opts.Env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_BSP_SCHEDULE_DELAY=20")
	s := &site{T: t, Install: traced.Start(t, opts)}
	s.collect()
	return s
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

// called reports whether a container has started, and what the caller did is there.
func called(e *explain.Explanation) bool {
	if !started(e) {
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
		Name: name, Runtime: s.Runtime.Name, Logs: filepath.Join(s.Rig.Dir, "logs"), Cgroup: "/" + s.Rig.Name, Network: true,
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
