package captured

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// levels are the expected numbers of a pod's spans, by source and level of the trace: "runtime
// 2" is right below a call of the shim.
var levels = map[string]map[string]int{
	// Below each of the runtime's calls are its own steps, then its requests to the agent, then
	// the agent's spans. Level 1 has life-long spans, and spans that began long after their
	// named parents: the runtime's after a process ended, the agent's once the runtime had
	// stopped tracing.
	Go: {
		"runtime 1": 5, "runtime 2": 29, "runtime 3": 19, "runtime 4": 14, "runtime 5": 25,
		"runtime 6": 6, "runtime 7": 12, "runtime 8": 17, "runtime 9": 6,
		"agent 1": 14, "agent 2": 13, "agent 3": 5, "agent 4": 6, "agent 5": 7, "agent 6": 7, "agent 7": 7,
		"agent 8": 12, "agent 9": 6, "agent 10": 7, "agent 11": 26, "agent 12": 7, "agent 13": 4, "agent 14": 3,
		"lost runtime span 1": 1,
	},
	// The agent's requests had no context, so its spans are beside the runtime's. Level 1 has
	// those of a process that was waited for, and killed before there was a Kill.
	Rust: {
		"runtime 1": 1, "runtime 2": 25, "runtime 3": 21, "runtime 4": 2,
		"agent 1": 2, "agent 2": 15, "agent 3": 19, "agent 4": 42, "agent 5": 11, "agent 6": 4, "agent 7": 3,
		"lost agent span 1": 2,
	},
}

// quiet are the names of what quiet calls cause in the runtime and the agent.
var quiet = map[string]bool{
	"State": true, "Stats": true, "Connect": true, "Wait": true, "AddEndpoints": true,
	"ttrpc.StatsContainer": true, "ttrpc.ReadStdout": true, "ttrpc.ReadStderr": true, "ttrpc.Check": true,
	"state_process": true, "stats_container": true, "connect_container": true, "do_stats_container": true,
}

// slow is how long, in nanoseconds, a quiet span may last.
const slow = 500e6

// Check fails the test unless spans, all of the pod's, form one trace below root and calls, the
// ids of the spans of Pod.Calls. Each of the runtime's calls must be below its own call, each
// level must have its number of spans, and there must be no orphan, no quiet span and no
// secret.
func (p *Pod) Check(tb testing.TB, in [16]byte, root [8]byte, calls [][8]byte, spans []*tracepb.Span) {
	tb.Helper()
	depths, by := map[[8]byte]int{root: 0}, make(map[[8]byte]*tracepb.Span)
	for _, id := range calls {
		depths[id] = 1
	}
	for _, s := range spans {
		by[[8]byte(s.SpanId)] = s
	}
	agents := make(map[[8]byte]bool)
	for _, s := range p.Agent {
		agents[s.SpanID] = true
	}
	counts := make(map[string]int)
	for _, s := range spans {
		if [16]byte(s.TraceId) != in {
			tb.Errorf("%s is in trace %x", s.Name, s.TraceId)
		}
		if quiet[s.Name] && s.EndTimeUnixNano-s.StartTimeUnixNano < slow {
			tb.Errorf("%s is quiet", s.Name)
		}
		if contains(s, secret) {
			tb.Errorf("%s has a secret", s.Name)
		}
		if i, ok := p.Of[[8]byte(s.SpanId)]; ok && parentOf(s) != calls[i] {
			tb.Errorf("%s %x is below %x, want %s", s.Name, s.SpanId, s.ParentSpanId, p.Calls[i].Method)
		}
		depth, whole := depthOf(s, by, depths)
		if !whole {
			tb.Errorf("%s %x is an orphan", s.Name, s.SpanId)
		}
		whose := "runtime"
		if agents[[8]byte(s.SpanId)] {
			whose = "agent"
		} else if s.Name == "lost agent span" || s.Name == "lost runtime span" {
			whose = s.Name
		}
		counts[fmt.Sprintf("%s %d", whose, depth)]++
	}
	if want := levels[p.name]; !maps.Equal(counts, want) {
		for _, l := range slices.Sorted(maps.Keys(counts)) {
			tb.Logf("%s: %d, want %d", l, counts[l], want[l])
		}
		tb.Errorf("there are %d spans, not at the levels where they are to be", len(spans))
	}
}

// depthOf returns a span's depth below the root, and whether the root is above it.
func depthOf(s *tracepb.Span, by map[[8]byte]*tracepb.Span, depths map[[8]byte]int) (int, bool) {
	for depth := 1; depth < 50; depth++ {
		if d, ok := depths[parentOf(s)]; ok {
			return depth + d, true
		}
		if s = by[parentOf(s)]; s == nil {
			break
		}
	}
	return 0, false
}

func parentOf(s *tracepb.Span) (id [8]byte) {
	copy(id[:], s.ParentSpanId)
	return id
}
