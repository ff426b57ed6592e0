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
// sandbox's own, if there is such a one.
type Start struct {
	Story *waterfall.Story
	Tree  *waterfall.Tree

	// From is when the caller's request began, as far as the spans go back; To when the
	// container's first instruction was executed, or else when Start was answered.
	From, To uint64
	// Target is the call that started the container, nil if none did.
	Target *waterfall.Node
	// Exact: To is the moment of the first instruction.
	Exact bool
	// VM: the container runs in a VM.
	VM bool
	// Processes: the helpers that the inner shim ran are recorded.
	Processes bool
	// Path covers From to To in the order of time, without holes.
	Path []Segment

	onPath map[*waterfall.Node]bool
}

// Find returns the start in a tree that was built with details, nil if the tree has no
// call that tells of one.
func Find(story *waterfall.Story, tree *waterfall.Tree) *Start {
	s := &Start{Story: story, Tree: tree, VM: kata.IsShim(story.Runtime), onPath: make(map[*waterfall.Node]bool)}
	var first, last *waterfall.Node
	Each(tree.Roots, func(n *waterfall.Node) {
		if n.Maker() != waterfall.ByShim || n.Start() == 0 {
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
		for at, name := range s.Target.Span.Events() {
			if name == programExecuted && s.Target.Start() <= at && at <= s.Target.End() {
				s.To, s.Exact = at, true
			}
		}
	}
	if s.From >= s.To {
		return nil
	}
	s.findPath()
	return s
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

// look notes what a span of the shim's says of the whole start.
func (s *Start) look(n *waterfall.Node) {
	switch {
	case n.Span.Name == vmBoot:
		s.VM = true
	case Program(n) != "":
		s.Processes = true
	case IsCall(n) && Method(n.Span) == "Start" && n.Span.Exec() == "" && !n.Span.Failed && !n.Span.Expected:
		if s.better(n) {
			s.Target = n
		}
	}
}

// better reports whether n is the target rather than what was found so far.
func (s *Start) better(n *waterfall.Node) bool {
	if s.Target == nil {
		return true
	}
	own := func(n *waterfall.Node) int {
		if n.Span.Container() == s.Story.Sandbox {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(own(n), own(s.Target)), cmp.Compare(n.Start(), s.Target.Start())) < 0
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
	s.Path = walk(nil, nest(items(s.Tree.Roots, s.From, s.To, target)), s.From, s.To, nil)
	slices.Reverse(s.Path)
	boot := s.boot()
	var path []Segment
	for _, g := range s.Path {
		s.name(&g)
		path = append(path, boot.split(g)...)
	}
	s.Path = path
	for _, g := range s.Path {
		for n := g.Node; n != nil && !s.onPath[n]; n = n.Parent() {
			s.onPath[n] = true
		}
	}
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

// OnPath reports whether a node or one below it is on the critical path.
func (s *Start) OnPath(n *waterfall.Node) bool { return s.onPath[n] }

// Length returns how long the start took.
func (s *Start) Length() time.Duration { return time.Duration(s.To - s.From) }

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
