package critical

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Start is the start of a sandbox's first container: of the first one that is not the
// sandbox's own, if there is one.
type Start struct {
	Story *waterfall.Story
	Tree  *waterfall.Tree

	// Interval is from the caller's request, as far as the spans go back, until the
	// container's first instruction was executed, or else until Start was answered.
	waterfall.Interval
	// Target is the call that started the container or, if none did, that failed to; nil
	// if the start goes on.
	Target *waterfall.Node
	// Exact: To is the moment of the first instruction.
	Exact bool
	// VM: the container runs in a VM.
	VM bool
	// Processes: the helpers that the inner shim ran are recorded; Requests: so are the
	// runtime's requests to the agent, as the relay saw them.
	Processes, Requests bool
	// Path covers From to To in the order of time, without holes.
	Path []Segment
}

// Find returns the start in a tree that was built with details, nil if the tree has no
// call that tells of one.
func Find(story *waterfall.Story, tree *waterfall.Tree) *Start {
	s := &Start{Story: story, Tree: tree, VM: kata.IsShim(story.Runtime)}
	var first, last *waterfall.Node
	Each(tree.Roots, func(n *waterfall.Node) {
		if n.Maker() != waterfall.ByShim || n.Start() == 0 {
			s.VM = s.VM || n.Maker() == waterfall.ByAgent || n.Maker() == waterfall.ByRuntime
			return
		}
		if begins(n) && (first == nil || n.Start() < first.Start()) {
			first = n
		}
		if starts(n) && (last == nil || n.End() > last.End()) {
			last = n
		}
		s.look(n)
	})
	if first == nil || last == nil && s.Target == nil {
		return nil
	}
	s.From, s.To = s.request(first.Start()), last.End()
	if s.Target != nil {
		s.To = s.Target.End()
		if at := firstInstruction(s.Target); at > s.From {
			s.To, s.Exact = at, true
		}
	}
	if s.From >= s.To {
		return nil
	}
	s.findPath()
	return s
}

// firstInstruction returns when a Start's program was executed, 0 if that is not
// recorded: by an event, or by a span of no length if it was known too late.
func firstInstruction(n *waterfall.Node) uint64 {
	for at, name := range n.Span.Events() {
		if name == names.ProgramExecuted {
			return at
		}
	}
	for _, c := range n.Children {
		if c.Name() == names.ProgramExecuted && c.Maker() == waterfall.ByShim {
			return c.Start()
		}
	}
	return 0
}

// Each calls f for every span below the nodes.
func Each(nodes []*waterfall.Node, f func(*waterfall.Node)) {
	stack := slices.Clone(nodes)
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = append(stack[:len(stack)-1], n.Children...)
		if n.Span != nil {
			f(n)
		}
	}
}

// begins reports whether a start may begin with the span.
func begins(n *waterfall.Node) bool {
	return n.Span.Name == names.SandboxStart || n.Span.Name == names.ShimStart || starts(n)
}

// starts reports whether the span is a call that creates or starts a container.
func starts(n *waterfall.Node) bool {
	if !IsCall(n) {
		return false
	}
	m := kata.TaskMethod(Method(n.Span))
	return m == "Create" || m == "Start" && n.Span.Exec() == ""
}

// look notes what a span of the shim says about the whole start.
func (s *Start) look(n *waterfall.Node) {
	switch {
	case n.Span.Name == names.VMBoot:
		s.VM = true
	case Program(n) != "":
		s.Processes = true
	case IsRequest(n):
		s.Requests = true
	case starts(n) && s.worth(n) < s.worth(s.Target), starts(n) && s.worth(n) == s.worth(s.Target) && s.worth(n) < noTarget && n.Start() < s.Target.Start():
		s.Target = n
	}
}

// noTarget is the rank of a call that is no target.
const noTarget = 4

// worth ranks the calls that may be the target, the best first: the Start of a
// container, a call that failed to start one, and the same of the sandbox's own.
func (s *Start) worth(n *waterfall.Node) int {
	if n == nil {
		return noTarget
	}
	rank := 0
	switch {
	case n.Span.Failed:
		rank = 1
	case kata.TaskMethod(Method(n.Span)) != "Start":
		return noTarget
	}
	if n.Span.Container() == s.Story.Sandbox {
		rank += 2
	}
	return rank
}

// request returns the start of the outermost span of a caller in which the moment lies.
func (s *Start) request(at uint64) uint64 {
	first := at
	Each(s.Tree.Roots, func(n *waterfall.Node) {
		if n.Maker() == waterfall.ByOthers && n.Start() != 0 && n.Start() <= at && at < n.End() {
			first = min(first, n.Start())
		}
	})
	return first
}

func (s *Start) findPath() {
	target := make(map[*waterfall.Node]bool)
	for n := s.Target; n != nil; n = n.Parent() {
		target[n] = true
	}
	if s.Target != nil {
		// A caller's span in which the target began waited for it as well.
		Each(s.Tree.Roots, func(n *waterfall.Node) {
			if n.Maker() == waterfall.ByOthers && n.Start() <= s.Target.Start() && s.To <= n.End() {
				target[n] = true
			}
		})
	}
	c := &cutter{from: s.From, target: target}
	s.Path = walk(nil, c.all(s.Tree.Roots, s.To), s.From, s.To, nil)
	slices.Reverse(s.Path)
	boot := s.boot()
	var path []Segment
	for _, g := range s.Path {
		s.name(&g)
		path = append(path, boot.split(g)...)
	}
	s.Path = path
}

// name says whose time a segment is.
func (s *Start) name(g *Segment) {
	if g.Node == nil {
		g.Layer, g.Inferred, g.What = Caller, true, "asked nothing of the shim"
		if g.After != nil && g.After.Span.Name == names.ShimStart {
			g.Layer, g.What = Containerd, "connects to the shim and prepares the mounts" // core/runtime/v2/task_manager.go, Create
		}
		return
	}
	g.Layer = s.layer(g.Node)
	if k := known(g); k != nil {
		g.Layer, g.What, g.Inferred = k.layer, k.what, true
	}
}

// LayerTime is the time on the critical path that belongs to a layer.
type LayerTime struct {
	Layer Layer
	Self  time.Duration
	// Inferred is the part of it that follows from facts, not from a span.
	Inferred time.Duration
}

// ByLayer returns the self time of each layer that has any, the longest first. Its sum
// is Length.
func (s *Start) ByLayer() (out []LayerTime) {
	at := make(map[Layer]int)
	for _, g := range s.Path {
		i, ok := at[g.Layer]
		if !ok {
			i = len(out)
			at[g.Layer] = i
			out = append(out, LayerTime{Layer: g.Layer})
		}
		out[i].Self += g.Length()
		if g.Inferred {
			out[i].Inferred += g.Length()
		}
	}
	slices.SortStableFunc(out, func(a, b LayerTime) int {
		return cmp.Or(cmp.Compare(b.Self, a.Self), strings.Compare(string(a.Layer), string(b.Layer)))
	})
	return out
}
