package causes

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// others returns the spans of other programs whose names begin with a prefix.
func (f *facts) others(prefixes ...string) []*waterfall.Node {
	return f.match(func(n *waterfall.Node) bool {
		if n.Maker() != waterfall.ByOthers {
			return false
		}
		return hasPrefix(n.Name(), prefixes...)
	})
}

func hasPrefix(name string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// spent makes a cause of spans on the path that are worth it.
func (f *facts) spent(nodes []*waterfall.Node, sentence string) *Cause {
	explains, cost := f.under(nodes)
	if !f.worth(cost) {
		return nil
	}
	n := longest(nodes)
	return &Cause{Sentence: fmt.Sprintf(sentence, dur(cost)), Evidence: []string{f.say(n)}, Cost: cost, Explains: explains}
}

// imagePart says what a span of an image's pull was doing.
type imagePart uint8

const (
	noImage imagePart = iota
	fetching
	unpacking
)

// imagePartOf returns what went on in a span, by the nearest span above that says so
// (containerd client/pull.go, core/unpack/unpacker.go, core/remotes/docker).
func imagePartOf(n *waterfall.Node) imagePart {
	for ; n != nil && n.Span != nil && n.Maker() == waterfall.ByOthers; n = n.Parent() {
		switch name := n.Name(); {
		case hasPrefix(name, "pkg.unpack.unpacker.unpack", "pull.UnpackWait"):
			return unpacking
		case hasPrefix(name, "pkg.unpack.unpacker.", "remotes.", "pull.", "runtime.v1.ImageService/PullImage"):
			return fetching
		}
	}
	return noImage
}

// image makes a cause of the time on the path that a part of the image's pull took.
func (f *facts) image(part imagePart, sentence string) *Cause {
	explains, cost := f.path(func(g *critical.Segment) bool { return g.Node != nil && imagePartOf(g.Node) == part })
	if !f.worth(cost) {
		return nil
	}
	c := &Cause{Sentence: fmt.Sprintf(sentence, dur(cost)), Cost: cost, Explains: explains}
	nodes := f.match(func(n *waterfall.Node) bool { return imagePartOf(n) == part })
	c.Evidence = append(c.Evidence, f.say(longest(nodes)))
	for _, n := range nodes {
		if ref := n.Span.Attr("image.ref"); ref != "" { // client/pull.go
			c.Evidence = append(c.Evidence, "image "+waterfall.Clean(ref))
			break
		}
	}
	return c
}

// pulled finds an image that was fetched.
func pulled(f *facts) *Cause {
	return f.image(fetching, "An image was pulled, which took %s without its unpacking")
}

// unpacked finds an image that was unpacked.
func unpacked(f *facts) *Cause {
	return f.image(unpacking, "An image was unpacked into the snapshotter, which took %s")
}

// slowCNI is a time for a pod's network that plugins of a healthy host stay below.
const slowCNI = 500 * time.Millisecond

// cni finds a CNI plugin that is slow.
func cni(f *facts) *Cause {
	nodes := f.others("cni.")
	if n := longest(nodes); n == nil || !f.unusual(length(n), slowCNI, title(n)) {
		return nil
	}
	return f.spent(nodes, "The pod's network (CNI) took %s to set up")
}

// slowMounts is a time for mounts that a healthy snapshotter stays below.
const slowMounts = 500 * time.Millisecond

// mounts finds a root file system that takes long to mount: by containerd between a shim's
// start and its first call, or by runc's shim before it runs runc.
func mounts(f *facts) *Cause {
	who, where := "", ""
	explains, cost := f.path(func(g *critical.Segment) bool {
		switch {
		case g.Layer == critical.Containerd && g.After != nil && g.After.Name() == names.ShimStart:
			who, where = "containerd", "between shim start and Task/Create, without a call"
		case g.Layer == critical.Shim && g.After == nil && g.Before != nil && critical.IsOCIRuntime(g.Before) && critical.IsCall(g.Node) && critical.Method(g.Node.Span) == "Create":
			who, where = "the shim", "between the start of "+title(g.Node)+" and "+title(g.Before)+", without a program"
		default:
			return false
		}
		return g.Length() >= worthTime
	})
	if !f.worth(cost) || !f.unusual(cost, slowMounts, "the root file system's mounts") {
		return nil
	}
	return &Cause{
		Sentence: fmt.Sprintf("The root file system probably took %s to mount, which %s does before the container is made", dur(cost), who),
		Evidence: []string{dur(cost) + " " + where}, Cost: cost, Explains: explains, Inferred: true,
	}
}

// idleCaller is a time without a call that a person asks about.
const idleCaller = time.Second

// idle finds long times in which nobody asked anything of the shim, and no span of a caller
// says why.
func idle(f *facts) *Cause {
	var evidence []string
	explains, cost := f.path(func(g *critical.Segment) bool {
		if g.Node != nil || g.Layer != critical.Caller || g.Length() < idleCaller || f.asked(g.Interval) != nil {
			return false
		}
		evidence = append(evidence, stretch(g)+", without a call")
		return true
	})
	if !f.worth(cost) || !f.unusual(cost, idleCaller, "the caller, between its calls,") {
		return nil
	}
	return &Cause{
		Sentence: fmt.Sprintf("For %s nobody asked anything of the shim: the caller was busy elsewhere, probably with an image, volumes or its own queue", dur(cost)),
		Evidence: evidence, Cost: cost, Explains: explains, Inferred: true,
	}
}
