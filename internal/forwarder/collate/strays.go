package collate

import (
	"math"
)

// The agent does some of an RPC's work on threads of its own (baremount,
// get_current_thread_ns_path), whose spans are roots. Such a stray belongs to the
// RPC whose interval holds it, which as a rule arrives later.

// remember takes in an RPC that may hold strays.
func (c *Collator) remember(n *node) {
	if s := n.span; c.holdsStrays(n) {
		c.rpcs[c.nextRPC%recentRPCs] = interval{s.SpanID, s.Start, s.End}
		c.nextRPC++
	}
}

// holdsStrays tells that strays may belong to a span: one that only waits, or that
// is not sent, is not their cause.
func (c *Collator) holdsStrays(n *node) bool {
	return n.rule != nil && len(n.rule.methods) > 0 && !c.quietRPC(n.rule)
}

// gather puts the strays that an RPC holds below it.
func (c *Collator) gather(n *node) {
	if len(c.held.strays) == 0 || !c.holdsStrays(n) {
		return
	}
	now := c.opts.Now().UnixNano()
	in := interval{n.id, n.span.Start, n.span.End}
	for t := range c.held.strays {
		if in.holds(t.top.span) {
			c.held.join(t.top, n, now)
		}
	}
}

// waits puts a stray below the RPC that holds it, or has it wait for one. It
// reports false if the stray is to get its place at once.
func (c *Collator) waits(n *node) bool {
	shortest := uint64(math.MaxUint64)
	var in *interval
	for i := range min(c.nextRPC, recentRPCs) {
		if r := &c.rpcs[i]; r.holds(n.span) && r.end-r.start < shortest {
			in, shortest = r, r.end-r.start
		}
	}
	now := c.opts.Now().UnixNano()
	if in != nil {
		if p, ok := c.placeOf(in.id); ok && !c.belowItself(n.id, in.id) {
			c.sendTo(n, spot{place: p, parent: in.id})
			return true
		}
		if above := c.held.nodes[in.id]; above != nil && c.held.join(n, above, now) {
			return true
		}
	}
	if len(c.held.strays) >= maxStrays {
		return false
	}
	c.held.strays[c.held.plant(n, now)] = struct{}{}
	return true
}
