package collate

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/forwarder/agentwire"
	"github.com/shimtrace/shimtrace/forwarder/jaeger"
	"github.com/shimtrace/shimtrace/forwarder/runtimespan"
)

// pod is a captured pod, whose runtime traced as well as its agent.
type pod struct {
	agent   []*agentwire.Span
	runtime [][]*runtimespan.Span // by request
	calls   []Call
	// of is the call that each of the runtime's calls is the serving of.
	of map[trace.SpanID]trace.SpanContext
}

// loadPod reads a captured pod and makes the calls that the runtime served: each a
// little longer than the serving, and of what the agent did below it.
func loadPod(t *testing.T, name string) *pod {
	p := &pod{agent: capture(t, name+".agent"), of: make(map[trace.SpanID]trace.SpanContext)}
	decoder := jaeger.NewDecoder(jaeger.Options{})
	for i, body := range posted(t, name) {
		_, spans, err := decoder.Decode(body)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		var request []*runtimespan.Span
		for i := range spans {
			request = append(request, &spans[i])
		}
		p.runtime = append(p.runtime, request)
	}
	parents, ids := make(map[trace.SpanID]trace.SpanID), make(map[trace.SpanID]*agentwire.Span)
	var first, last *runtimespan.Span
	each := func(f func(*runtimespan.Span)) {
		for _, request := range p.runtime {
			for _, s := range request {
				f(s)
			}
		}
	}
	each(func(s *runtimespan.Span) {
		parents[s.SpanID] = s.ParentID
		switch {
		case s.Name == "sb: start" && (first == nil || s.Start < first.Start):
			first = s
		case s.Name == "create_container" && s.ParentID == [8]byte{} && last == nil:
			last = s
		}
	})
	// What the agent says of ids, the Go runtime's spans say not.
	for _, s := range p.agent {
		if s.ContainerID != "" && rpcs[s.Name] != nil {
			for at := trace.SpanID(s.ParentID); at.IsValid(); at = parents[at] {
				if ids[at] == nil {
					ids[at] = s
				}
			}
		}
	}
	add := func(method, container, exec string, start, end uint64) trace.SpanContext {
		c := Call{
			Method: method, ContainerID: container, ExecID: exec, SpanContext: context(ourTrace, uint64(0xC000+len(p.calls))),
			Start: time.Unix(0, int64(start)-2*ms), End: time.Unix(0, int64(end)+2*ms),
		}
		p.calls = append(p.calls, c)
		return c.SpanContext
	}
	if first != nil && last != nil {
		add("Create", "", "", first.Start, last.End) // as runtime-rs shows a sandbox's
	}
	each(func(s *runtimespan.Span) {
		if s.Method == "" || s.Name == "handler_task_request" {
			return
		}
		container, exec := s.ContainerID, s.ExecID
		if a := ids[s.SpanID]; a != nil && container == "" {
			container = a.ContainerID
			if a.ExecID != "" {
				exec = "exec-of-" + a.ExecID[:4]
			}
		}
		p.of[s.SpanID] = add(s.Method, container, exec, s.Start, s.End)
	})
	each(func(s *runtimespan.Span) {
		if s.Name != "handler_task_request" {
			return
		}
		for _, c := range p.calls {
			if c.Method == s.Method && c.Start.UnixNano() <= int64(s.Start) && int64(s.End) <= c.End.UnixNano() && c.ContainerID == s.ContainerID && c.ExecID == s.ExecID {
				p.of[s.SpanID] = c.SpanContext
			}
		}
	})
	if len(p.of) == 0 {
		t.Fatal("no call in the capture")
	}
	return p
}

// posted returns the bodies of the requests that a runtime made.
func posted(t *testing.T, name string) (all [][]byte) {
	f, err := os.Open(filepath.Join("..", "jaeger", "testdata", name+".runtime-thrift.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := tar.NewReader(z)
	for {
		h, err := files.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			body, err := io.ReadAll(files)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, body)
		}
	}
}

// play tells a bed of calls and spans as they came: of a call as it begins and ends,
// of the runtime's spans as a request ends that brings them, of the agent's some
// seconds after their end.
func (p *pod) play(b *bed) {
	type event struct {
		at int64
		do func()
	}
	var events []event
	for _, c := range p.calls {
		begun := c
		begun.End = time.Time{}
		events = append(events,
			event{c.Start.UnixNano(), func() { b.Call(begun) }},
			event{c.End.UnixNano(), func() { b.Call(c) }})
	}
	at := int64(0)
	for _, request := range p.runtime {
		for _, s := range request {
			at = max(at, int64(s.End)+ms)
		}
		events = append(events, event{at, func() {
			for _, s := range request {
				b.AddRuntime(s)
			}
		}})
	}
	at = 0
	for _, s := range p.agent {
		at = max(at, int64(s.End)+2500*ms)
		events = append(events, event{at, func() { b.Add(s) }})
	}
	slices.SortStableFunc(events, func(x, y event) int { return int(x.at - y.at) })
	b.now = events[0].at
	for _, e := range events {
		b.pass(time.Duration(e.at - b.now))
		e.do()
	}
	b.AgentEnded()
	b.Ended()
}

// levels counts the spans that were sent by whose they are and how far below the
// sandbox's root: "runtime 2" is below a call.
func (p *pod) levels(b *bed) map[string]int {
	ours := map[trace.SpanID]int{rootSpan.SpanID(): 0}
	for _, c := range p.calls {
		ours[c.SpanContext.SpanID()] = 1
	}
	agents := make(map[trace.SpanID]bool)
	for _, s := range p.agent {
		agents[s.SpanID] = true
	}
	counts := make(map[string]int)
	for _, s := range b.out {
		depth := 0
		at := s
		for {
			depth++
			if d, ok := ours[parentOf(at)]; ok {
				depth += d
				break
			}
			next := b.by[parentOf(at)]
			if next == nil || depth > 50 {
				b.t.Errorf("%s %x is an orphan", s.Name, s.SpanId)
				break
			}
			at = next
		}
		whose := "runtime"
		if agents[trace.SpanID(s.SpanId)] {
			whose = "agent"
		} else if strings.HasPrefix(s.Name, "lost") {
			whose = s.Name
		}
		counts[fmt.Sprintf("%s %d", whose, depth)]++
	}
	return counts
}

// TestPods replays captured pods: one trace each, whole, in which everything is below
// the call that caused it and nothing is quiet or secret.
func TestPods(t *testing.T) {
	for name, want := range map[string]map[string]int{
		// Below each of the runtime's calls are its own workings, below those its
		// requests to the agent, below those the agent's. What the agent has at level 1
		// lives as long as it does; what it has at levels 2 and 3, of runtime's calls, it
		// was asked when the runtime did not trace any more.
		"kata-4.1.0-pod": {
			"runtime 1": 1, "runtime 2": 23, "runtime 3": 19, "runtime 4": 20, "runtime 5": 29,
			"runtime 6": 6, "runtime 7": 12, "runtime 8": 17, "runtime 9": 6,
			"agent 1": 2, "agent 2": 8, "agent 3": 14, "agent 4": 10, "agent 5": 8, "agent 6": 9, "agent 7": 8,
			"agent 8": 12, "agent 9": 6, "agent 10": 7, "agent 11": 26, "agent 12": 7, "agent 13": 4, "agent 14": 3,
			LostRuntimeName + " 1": 1,
		},
		// The agent was asked without a context: beside the runtime's workings.
		"kata-4.1.0-rs-pod": {
			"runtime 1": 1, "runtime 2": 25, "runtime 3": 21, "runtime 4": 2,
			"agent 1": 1, "agent 2": 15, "agent 3": 20, "agent 4": 42, "agent 5": 11, "agent 6": 4, "agent 7": 3,
			LostName + " 1": 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := loadPod(t, name)
			b := newBed(t, func(o *Options) {
				o.QuietSpans = []string{"AddEndpoints", "ttrpc.ReadStdout", "ttrpc.ReadStderr", "ttrpc.Check", "ttrpc.WaitProcess", "ttrpc.GetOOMEvent", "ttrpc.StatsContainer"}
			})
			p.play(b)
			b.balance()
			got := p.levels(b)
			if !maps.Equal(got, want) {
				for _, l := range slices.Sorted(maps.Keys(got)) {
					t.Log(l, got[l])
				}
				t.Error("that is not what was expected: ", want)
			}
			if n := b.drops[Quiet]; len(b.drops) != 1 || n+len(b.out)-int(b.Stats().Placeholders) != p.size() {
				t.Errorf("of %d spans %d were sent, dropped: %v", p.size(), len(b.out), b.drops)
			}
			for _, s := range b.out {
				if trace.TraceID(s.TraceId) != ourTrace {
					t.Errorf("%s is in trace %x", s.Name, s.TraceId)
				}
				if strings.Contains(fmt.Sprint(s), "hunter2") {
					t.Errorf("%s has the secret", s.Name)
				}
				if quietNames[s.Name] && s.EndTimeUnixNano-s.StartTimeUnixNano < 5e8 {
					t.Errorf("%s is quiet", s.Name)
				}
				if call, ok := p.of[trace.SpanID(s.SpanId)]; ok && parentOf(s) != call.SpanID() {
					t.Errorf("%s %x is below %v, want %v", s.Name, s.SpanId, parentOf(s), call.SpanID())
				}
			}
		})
	}
}

// quietNames are what a pod's quiet calls show as, in the runtime and in the agent.
var quietNames = map[string]bool{
	"State": true, "Stats": true, "Connect": true, "Wait": true, "AddEndpoints": true, "ttrpc.StatsContainer": true,
	"state_process": true, "stats_container": true, "connect_container": true, "do_stats_container": true,
	"ttrpc.ReadStdout": true, "ttrpc.ReadStderr": true, "ttrpc.Check": true,
}

func (p *pod) size() int {
	n := len(p.agent)
	for _, request := range p.runtime {
		n += len(request)
	}
	return n
}
