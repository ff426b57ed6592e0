package critical

import (
	"strings"

	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// fact says what goes on in a span that says little itself, or in a stretch between two
// spans whose maker records nothing there. Empty fields match anything; names may begin
// or end in "*".
type fact struct {
	maker             waterfall.Maker
	in, after, before string
	file              string // the end of the span's code.filepath
	leaf              bool   // nothing is recorded below it
	layer             Layer
	what              string
}

// facts are about Kata 4.1; sources are paths in the repository kata-containers.
var facts = [...]fact{
	// src/runtime/virtcontainers/kata_agent.go, startSandbox: connect dials the agent until it
	// answers.
	{maker: waterfall.ByRuntime, in: "connect", leaf: true, layer: GuestKernel, what: "waits until the agent answers: the guest boots"},
	// src/runtime/virtcontainers/sandbox.go, startVM: the VM is started, then the agent asked.
	{maker: waterfall.ByRuntime, in: "startVM", before: kata.RequestPrefix + "*", layer: GuestKernel, what: "starts the VM and waits until the agent answers"},
	// The same, and src/runtime-rs/crates/runtimes/virt_container/src/sandbox.rs, start, by
	// the first request that the relay saw.
	{maker: waterfall.ByShim, in: "*Task/Create", before: kata.AgentService + "/CreateSandbox", layer: GuestKernel, what: "starts the VM and waits until the agent answers"},
	// src/runtime/virtcontainers/qemu.go, waitVM: it waits for QEMU's QMP socket.
	{maker: waterfall.ByRuntime, in: "waitVM", leaf: true, layer: VMM, what: "waits for the VMM's control socket"},
	// src/runtime-rs/crates/agent/src/kata/agent.rs, start: it connects to the agent.
	{maker: waterfall.ByRuntime, in: "start", file: "agent/src/kata/agent.rs", leaf: true, layer: GuestKernel, what: "waits until the agent answers: the guest boots"},
	// src/runtime-rs/crates/runtimes/virt_container/src/sandbox.rs, start: between both,
	// hypervisor.start_vm, which has no span.
	{maker: waterfall.ByRuntime, in: "sb: start", after: "prepare_before_start_vm", before: "start", layer: VMM, what: "starts the VMM"},
	// The same: it sends CreateSandbox and asks for the guest's details.
	{maker: waterfall.ByRuntime, in: "sb: start", after: "setup_after_start_vm", layer: Agent, what: "creates the sandbox in the agent"},
	// src/runtime-rs/crates/agent/src/kata/agent.rs: each function is a request to the agent.
	{maker: waterfall.ByRuntime, file: "agent/src/kata/agent.rs", layer: Agent, what: "waits for the agent"},
	// src/runtime/virtcontainers/kata_agent.go, sendReq: a request to the agent.
	{maker: waterfall.ByRuntime, in: kata.RequestPrefix + "*", layer: Agent, what: "waits for the agent"},
	// src/agent/src/rpc.rs, do_create_container, and rustjail/src/container.rs: the process
	// is created between these, without a span.
	{maker: waterfall.ByAgent, in: "do_create_container", before: "update_shared_pidns", layer: Agent, what: "makes the container's process"},
	{maker: waterfall.ByAgent, in: "do_create_container", after: "baremount", layer: Agent, what: "makes the container's process"},
}

// known returns what is known of a segment, nil if nothing is.
func known(g *Segment) *fact {
	for i := range facts {
		if facts[i].is(g) {
			return &facts[i]
		}
	}
	return nil
}

func (f *fact) is(g *Segment) bool {
	return g.Node.Maker() == f.maker && (!f.leaf || g.Leaf) && is(f.in, g.Node) && is(f.after, g.After) && is(f.before, g.Before) &&
		(f.file == "" || strings.HasSuffix(g.Node.Span.Attr("code.filepath"), f.file))
}

func is(pattern string, n *waterfall.Node) bool {
	if pattern == "" {
		return true
	}
	if n == nil {
		return false
	}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(n.Name(), prefix)
	}
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(n.Name(), suffix)
	}
	return n.Name() == pattern
}
