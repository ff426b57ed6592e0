package causes

import (
	"fmt"
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
		for _, p := range prefixes {
			if strings.HasPrefix(n.Name(), p) {
				return true
			}
		}
		return false
	})
}

// spent makes a cause of spans on the path that are worth it.
func (f *facts) spent(nodes []*waterfall.Node, sentence string) *found {
	explains, cost := f.under(nodes)
	if !f.worth(cost) {
		return nil
	}
	n := longest(nodes)
	return &found{sentence: fmt.Sprintf(sentence, dur(cost)), evidence: []string{f.say(n)}, cost: cost, explains: explains}
}

// pulled finds an image that was pulled.
func pulled(f *facts) *found {
	pulls := f.others("pull.", "runtime.v1.ImageService/PullImage", "remotes.")
	c := f.spent(pulls, "An image was pulled, which took %s")
	if c == nil {
		return nil
	}
	for _, n := range pulls {
		if ref := n.Span.Attr("image.ref"); ref != "" { // client/pull.go
			c.evidence = append(c.evidence, "image "+waterfall.Clean(ref))
			break
		}
	}
	return c
}

// unpacked finds an image that was unpacked.
func unpacked(f *facts) *found {
	return f.spent(f.others("pkg.unpack.unpacker.unpack", "pull.UnpackWait"), "An image was unpacked into the snapshotter, which took %s")
}

// cni finds a CNI plugin that is slow. A healthy one takes a tenth of that.
func cni(f *facts) *found {
	nodes := f.others("cni.")
	if n := longest(nodes); n == nil || length(n) < 200*time.Millisecond {
		return nil
	}
	return f.spent(nodes, "The pod's network (CNI) took %s to set up")
}

// mounts finds a long time between a shim's start and its first call, in which
// containerd prepares the mounts.
func mounts(f *facts) *found {
	explains, cost := f.path(func(g *critical.Segment) bool {
		return g.Layer == critical.Containerd && g.After != nil && g.After.Name() == names.ShimStart
	})
	if !f.worth(cost) || cost < 200*time.Millisecond {
		return nil
	}
	return &found{
		sentence: fmt.Sprintf("containerd took %s from the shim's start to its first call: probably for the root file system's mounts", dur(cost)),
		evidence: []string{dur(cost) + " between shim start and Task/Create, without a call"}, cost: cost, explains: explains, inferred: true,
	}
}

// idleCaller is a time without a call that a person asks about.
const idleCaller = time.Second

// idle finds long times in which nobody asked anything of the shim, and no span of the
// caller's says why.
func idle(f *facts) *found {
	var evidence []string
	explains, cost := f.path(func(g *critical.Segment) bool {
		if g.Node != nil || g.Layer != critical.Caller || g.Length() < idleCaller {
			return false
		}
		evidence = append(evidence, stretch(g)+", without a call")
		return true
	})
	if !f.worth(cost) {
		return nil
	}
	return &found{
		sentence: fmt.Sprintf("For %s nobody asked anything of the shim: the caller was busy elsewhere, probably with an image, volumes or its own queue", dur(cost)),
		evidence: evidence, cost: cost, explains: explains, inferred: true,
	}
}
