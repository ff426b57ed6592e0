package kata

import "strings"

// Spans of the runtimes.
const (
	// RequestPrefix is the prefix of the Go runtime's spans for requests to the agent
	// (src/runtime/virtcontainers/pkg/agent/protocols/client/client.go).
	RequestPrefix = "ttrpc."
	// GoPackage is the package attribute of the Go runtime's spans for the shim's calls
	// (src/runtime/pkg/containerd-shim-v2/service.go, shimTracingTags).
	GoPackage = "containerdshim"
	// Endpoints is a frequent span of the Go runtime that says little
	// (src/runtime/virtcontainers/network_linux.go, AddEndpoints).
	Endpoints = "AddEndpoints"

	// runtime-rs's spans for the shim's calls
	// (src/runtime-rs/crates/runtimes/src/manager.rs).
	TaskMessage    = "handler_task_message"
	TaskRequest    = "handler_task_request"
	SandboxMessage = "handler_sandbox_message"
)

// IsRuntimeRoot reports whether a runtime's span of that name lasts as long as its
// sandbox: the Go runtime's (src/runtime/pkg/containerd-shim-v2/create.go) or
// runtime-rs's (src/runtime-rs/crates/runtimes/src/tracer.rs).
func IsRuntimeRoot(name string) bool { return name == "rootSpan" || name == "root-span" }

// IsRuntimeService reports whether a service is one of Kata's runtimes: the Go runtime
// (src/runtime/pkg/katautils/katatrace/tracing.go), or runtime-rs, with the beginning of
// its sandbox's id (src/runtime-rs/crates/runtimes/src/tracer.rs).
func IsRuntimeService(name string) bool {
	return name == "kata" || strings.HasPrefix(name, RustService)
}

// RustService precedes the first 8 characters of a sandbox's id in the service name of
// runtime-rs.
const RustService = "kata-sb-"

// LifeLong are the agent's spans that are no request and last as long as the agent
// (src/agent/src/main.rs, src/agent/src/uevent.rs). Their children arrive long before
// them.
var LifeLong = [...]string{"root-span", "start_sandbox", "watch_uevents"}

// below lists, by name, agent spans that always have the same parent.
var below = [...]struct{ child, parent string }{
	{"new", "start_sandbox"},
	{"start_sandbox", "root-span"},
	{"process", "watch_uevents"},
	{"setup_shared_namespaces", "create_sandbox"},
	{"destroy", "destroy_sandbox"},
}

// ParentSpan returns the name of the agent's span that is always the parent of those
// named child, empty if unknown: do_<span> is below <span>, others are listed.
func ParentSpan(child string) string {
	if parent, ok := strings.CutPrefix(child, "do_"); ok {
		return parent
	}
	for _, b := range below {
		if b.child == child {
			return b.parent
		}
	}
	return ""
}
