package explain_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/cri"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

func TestMain(m *testing.M) {
	code := m.Run()
	traced.Clean()
	os.Exit(code)
}

// endpoint is where containerd sends its own spans, in the rig's network namespace.
const endpoint = "127.0.0.1:4318"

// site is a containerd that traces itself, with shimtrace in it.
type site struct {
	*testing.T
	*traced.Install
	callers *otlprecv.Receiver
}

func start(t *testing.T, opts traced.Options) *site {
	t.Helper()
	shipper, err := traced.ImpatientShipper(t.TempDir())
	check(t, err)
	opts.Config += "\n[export]\nshipper = '" + shipper + "'\n"
	opts.Env = append(opts.Env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+endpoint, "OTEL_BSP_SCHEDULE_DELAY=20")
	s := &site{T: t, Install: traced.Start(t, opts)}
	s.callers, err = otlprecv.Listen(otlprecv.Options{NetNS: s.Rig.NetNS(), HTTPAddr: endpoint})
	check(t, err)
	t.Cleanup(func() {
		s.until("the shipper to end", func() bool { return len(traced.Find(s.Rig, traced.Collect)) == 0 })
		s.callers.Close()
	})
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) until(what string, holds func() bool) {
	s.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("still waiting for %s", what)
		}
	}
}

// messages returns what the journal has, with the spans that containerd sent, and the
// losses that the journal counted.
func (s *site) messages() (all [][]byte, lost map[string]int) {
	s.Helper()
	lost = make(map[string]int)
	_, err := journal.Scan(s.Journal, func(r journal.Record) error {
		switch r.Kind {
		case journal.KindTraces:
			all = append(all, append([]byte(nil), r.Payload...))
		case journal.KindDrops, journal.KindCarried:
			drops, err := r.Drops()
			for reason, n := range drops {
				lost[reason] += n
			}
			return err
		}
		return nil
	})
	check(s.T, err)
	for _, r := range s.callers.Requests() {
		var others []*tracepb.ResourceSpans
		for _, rs := range r.Body.ResourceSpans {
			if service(rs) == "containerd" {
				others = append(others, rs)
			}
		}
		data, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: others})
		check(s.T, err)
		all = append(all, data)
	}
	return all, lost
}

func service(rs *tracepb.ResourceSpans) string {
	for _, a := range rs.GetResource().GetAttributes() {
		if a.Key == "service.name" {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

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
	s.until("the spans of "+id, func() bool {
		all, lost := s.messages()
		x := waterfall.NewIndex()
		for _, m := range all {
			check(s.T, x.Add(m, time.Now()))
		}
		for _, story := range x.Stories() {
			if story.Sandbox != id {
				continue
			}
			b := waterfall.NewBuilder(story, waterfall.Limits{}, true)
			for _, m := range all {
				check(s.T, b.Add(m))
			}
			e = explain.Explain(story, b.Tree(), lost)
			return ready(e)
		}
		return false
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
	p := &pod{site: s, name: name}
	id := sha256.Sum256([]byte(s.Rig.Name + name))
	p.ctx = metadata.AppendToOutgoingContext(s.Context(), "traceparent", fmt.Sprintf("00-%x-%x-01", id[:16], id[16:24]))
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
