package traced

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
)

// Tree draws shimtrace's spans among those given as text, to be compared with
// what docs/spans.md promises:
//
//	resource container.runtime.name=containerd host.name=HOST service.instance.id=RUN service.name=containerd-shim-runc-v2 …
//	trace
//	  sandbox start
//	    Task/Create server OK container.id=box process.pid=PID
//	    Task/Start server NOT_FOUND container.id=box status="no such process"
//	trace
//	  (client Task/Kill of containerd)
//	    Task/Kill server OK container.id=box shimtrace.signal=15 ~ sandbox start
//
// A span is drawn below its parent, with all its attributes, its status, its
// links (~) and its events (!); in brackets a parent that somebody else made.
// What is the same for all spans, for instance rpc.method being the span's name,
// is drawn only where it differs. What differs from run to run is replaced: pids,
// the host, the run, ids of execs by their number, and what names says in the manner of
// strings.NewReplacer, for instance a container's id. Siblings and traces are in
// alphabetical order, since they race, but the sandbox's own trace comes first. A
// span that is there more than once is drawn once, with a remark.
func Tree(all []otlprecv.Span, names ...string) string {
	t := &tree{
		rename:   strings.NewReplacer(names...),
		spans:    make(map[string]otlprecv.Span),
		times:    make(map[string]int),
		children: make(map[string][]string),
		execs:    make(map[string]string),
	}
	resources := make(map[string]bool)
	var ours []otlprecv.Span
	for _, s := range all {
		if t.times[s.ID]++; t.times[s.ID] == 1 && isOurs(s) {
			ours = append(ours, s)
		}
		t.spans[s.ID] = s
	}
	slices.SortStableFunc(ours, func(a, b otlprecv.Span) int { return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano) })
	tops := make(map[string][]string) // by trace
	for _, s := range ours {
		resources[t.rename.Replace("resource"+attrs(s.Resource)+"\n")] = true
		t.number(s)
		parent, known := t.spans[s.ParentID]
		switch {
		case known && isOurs(parent) && parent.TraceID == s.TraceID:
			t.children[s.ParentID] = append(t.children[s.ParentID], s.ID)
		default:
			tops[s.TraceID] = append(tops[s.TraceID], s.ID)
		}
	}
	var traces []string
	for _, ids := range tops {
		traces = append(traces, t.drawTrace(ids))
	}
	slices.SortFunc(traces, func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(b, "\n  "+rootSpan), strings.Count(a, "\n  "+rootSpan)), cmp.Compare(a, b))
	})
	return strings.Join(append(slices.Sorted(maps.Keys(resources)), traces...), "")
}

const (
	rootSpan = "sandbox start"
	project  = "github.com/shimtrace/shimtrace/"
)

func isOurs(s otlprecv.Span) bool { return strings.HasPrefix(s.Scope, project) }

type tree struct {
	rename   *strings.Replacer
	spans    map[string]otlprecv.Span
	times    map[string]int      // how often a span is there
	children map[string][]string // by parent's id
	execs    map[string]string
}

// number gives execs numbers in the order of their first spans.
func (t *tree) number(s otlprecv.Span) {
	if id, ok := s.Attrs["shimtrace.exec.id"].(string); ok && t.execs[id] == "" {
		t.execs[id] = fmt.Sprintf("EXEC%d", len(t.execs)+1)
	}
}

// drawTrace draws a trace of which the spans with these ids are ours and on top.
func (t *tree) drawTrace(ids []string) string {
	var drawn []string
	under := make(map[string][]string) // by a parent that is not ours
	for _, id := range ids {
		if parent := t.spans[id].ParentID; parent != "" {
			under[parent] = append(under[parent], id)
		} else {
			drawn = append(drawn, t.drawAll([]string{id}, "  "))
		}
	}
	for id, children := range under {
		line := "UNKNOWN"
		if s, known := t.spans[id]; known && s.TraceID == t.spans[children[0]].TraceID {
			line = t.rename.Replace(fmt.Sprintf("(%s %s of %s)", kind(s), s.Name, s.Service()))
		}
		drawn = append(drawn, "  "+line+"\n"+t.drawAll(children, "    "))
	}
	slices.Sort(drawn)
	return "trace\n" + strings.Join(drawn, "")
}

func (t *tree) drawAll(ids []string, indent string) string {
	var drawn []string
	for _, id := range ids {
		drawn = append(drawn, indent+t.line(t.spans[id])+"\n"+t.drawAll(t.children[id], indent+"  "))
	}
	slices.Sort(drawn)
	return strings.Join(drawn, "")
}

func (t *tree) line(s otlprecv.Span) string {
	rest := maps.Clone(s.Attrs)
	text, scope := s.Name, project+"shim"
	if s.Kind != tracepb.Span_SPAN_KIND_INTERNAL {
		text += " " + kind(s)
	}
	if _, isCall := rest["rpc.method"]; isCall {
		scope = project + "middleware"
		text += fmt.Sprintf(" %v", rest["rpc.response.status_code"])
		delete(rest, "rpc.response.status_code")
		for key, usual := range map[string]any{"rpc.system.name": "ttrpc", "rpc.method": s.Name} {
			if rest[key] == usual {
				delete(rest, key)
			} else if rest[key] == nil {
				rest[key] = "MISSING"
			}
		}
	}
	if s.Scope != scope {
		text += " scope=" + s.Scope
	}
	if id, ok := rest["shimtrace.exec.id"].(string); ok {
		rest["shimtrace.exec.id"] = t.execs[id]
	}
	text += attrs(rest)
	if code := s.GetStatus().GetCode(); code != tracepb.Status_STATUS_CODE_UNSET {
		text += fmt.Sprintf(" status=%q", s.GetStatus().GetMessage())
	}
	for _, e := range s.Events {
		ev := otlprecv.Flatten([]*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Attributes: e.Attributes}}}}}})
		text += " ! " + e.Name + attrs(ev[0].Attrs)
	}
	for _, l := range s.Links {
		text += " ~ " + t.linked(l)
	}
	if n := t.times[s.ID]; n > 1 {
		text += fmt.Sprintf(" TIMES %d", n)
	}
	return t.rename.Replace(text)
}

func (t *tree) linked(l *tracepb.Span_Link) string {
	s, known := t.spans[fmt.Sprintf("%x", l.SpanId)]
	switch {
	case !known || s.TraceID != fmt.Sprintf("%x", l.TraceId):
		return "UNKNOWN"
	case isOurs(s):
		return s.Name
	}
	return fmt.Sprintf("(%s %s of %s)", kind(s), s.Name, s.Service())
}

func kind(s otlprecv.Span) string {
	return strings.ToLower(strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"))
}

// isEvidence reports whether an attribute says how busy the host was.
func isEvidence(key string) bool {
	return slices.ContainsFunc([]string{"pressure.", "cgroup.", "inner.", "vmm."}, func(of string) bool { return strings.HasPrefix(key, "shimtrace."+of) })
}

// attrs draws attributes in the order of their keys, each with a space before it.
func attrs(m map[string]any) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if isEvidence(key) {
			continue
		}
		v := m[key]
		switch n, isInt := v.(int64); {
		case key == "host.name":
			v = "HOST"
		case key == "service.instance.id":
			v = "RUN"
		case key == "process.pid" && isInt && n > 1:
			v = "PID"
		}
		fmt.Fprintf(&b, " %s=%v", key, v)
	}
	return b.String()
}
