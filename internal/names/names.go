// Package names has the names in shimtrace's spans: scopes, spans and events,
// attributes. docs/spans.md says what they mean; a test compares it with this file.
//
// Attributes of OpenTelemetry's conventions are in its package semconv. The ones here
// are for packages that read OTLP without the SDK.
package names

// Scopes.
const (
	// ShimScope is the scope of the shim's own work, CallScope that of calls.
	ShimScope = "github.com/shimtrace/shimtrace/shim"
	CallScope = "github.com/shimtrace/shimtrace/middleware"
	// AgentScope is the scope of the agent's spans, RuntimeScope that of the runtime's.
	// Both are service names as well.
	AgentScope   = "kata-agent"
	RuntimeScope = "kata-runtime"
)

// Spans, and events of the same names.
const (
	SandboxStart    = "sandbox start"
	ShimStart       = "shim start"
	InnerStart      = "inner start"
	RelaySpawn      = "relay spawn"
	ContainerExited = "container exited"
	ExecExited      = "exec exited"
	RelayResumed    = "relay resumed"
	ShimDelete      = "shim delete"
	InnerDelete     = "inner delete"
	SwitchedOn      = "tracing switched on"
	SwitchedOff     = "tracing switched off"
	ConnectionEnded = "agent connection ended"
	// ProgramExecuted is an event of a Start's span. If the execution became known too late
	// for that, it is a span below that one.
	ProgramExecuted = "program executed"
	// VMBoot is from the VMM's start until the agent answers; the other three are its phases.
	VMBoot       = "VM boot"
	VMMStart     = "VMM start"
	GuestBoot    = "guest boot"
	AgentConnect = "agent connect"
	// UnknownProgram is a helper that was gone before its name could be read. The spans
	// of other helpers have their programs' names.
	UnknownProgram = "unknown program"
	// LostAgentSpan and LostRuntimeSpan are placeholders. They last from the start of
	// their first child to the end of their last one.
	LostAgentSpan   = "lost agent span"
	LostRuntimeSpan = "lost runtime span"
)

// Attributes of resources.
const (
	Sandbox   = "shimtrace.sandbox.id" // also on CreateSandbox spans
	Namespace = "shimtrace.containerd.namespace"
	// Runtime is the name that the wrapper was called by ("kata-qemu"). Several such
	// names may share one inner shim, whose name is the service's.
	Runtime = "shimtrace.runtime"
	CID     = "shimtrace.vsock.cid" // of a VM whose sandbox is unknown
)

// Attributes of spans.
const (
	Exec   = "shimtrace.exec.id"
	Signal = "shimtrace.signal"

	Expected        = "shimtrace.expected"
	ExpectedMessage = "shimtrace.expected.message"

	ClaimedContainer = "shimtrace.claimed.container.id"
	ClaimedExec      = "shimtrace.claimed.exec.id"

	Placeholder   = "shimtrace.placeholder"
	Clipped       = "shimtrace.clipped"
	OriginalStart = "shimtrace.original.start_time_unix_nano"
	OriginalEnd   = "shimtrace.original.end_time_unix_nano"

	BegunBeforeOn     = "shimtrace.begun_before_on"
	EndedAfterOff     = "shimtrace.ended_after_off"
	SwitchedOnFor     = "shimtrace.switched_on.for" // "30s"
	SwitchedOffReason = "shimtrace.switched_off.reason"

	ResumeCause = "shimtrace.relay.resumed.cause" // "killed", "hung" or "upgrade"
	ResumeLost  = "shimtrace.relay.resumed.spans_lost"

	// Of helpers: what inner shims execute on the host.
	ProcessRole       = "shimtrace.process.role" // "oci_runtime", "hook" or "vmm"
	ProcessCPUTime    = "shimtrace.process.cpu_time_ns"
	ProcessSubcommand = "shimtrace.process.subcommand"
	ProcessEventsLost = "shimtrace.process.events_lost" // also on calls

	// Of the VM's boot.
	VMAttempts = "shimtrace.vm.attempts" // to reach the agent
	VMProgram  = "shimtrace.vm.vmm"
	VMDebug    = "shimtrace.vm.debug" // words for debugging in the VMM's command line

	// On the sandbox's root: what the host suffered until that span ended, in
	// nanoseconds. Throttled counts since the cgroup was made.
	PressureCPU    = "shimtrace.pressure.cpu.some_ns"
	PressureIO     = "shimtrace.pressure.io.some_ns"
	PressureMemory = "shimtrace.pressure.memory.some_ns"
	Throttled      = "shimtrace.cgroup.throttled_ns"
	CgroupManager  = "shimtrace.cgroup.manager" // "systemd" or "cgroupfs"
	// Of long calls.
	InnerCPUTime = "shimtrace.inner.cpu_time_ns"
	InnerFaults  = "shimtrace.inner.major_faults"
	VMMCPUTime   = "shimtrace.vmm.cpu_time_ns"
	VMMFaults    = "shimtrace.vmm.major_faults"

	// FirstInstruction is on the sandbox's root: from its start to the first program that is
	// executed in a container, in nanoseconds.
	FirstInstruction = "shimtrace.time_to_first_instruction_ns"

	ConnectionEndedBy     = "shimtrace.agent.connection.ended_by" // "runtime" or "agent"
	ConnectionError       = "shimtrace.agent.connection.error"    // absent: an orderly end
	ConnectionLastRequest = "shimtrace.agent.connection.last_request"
	ConnectionRequests    = "shimtrace.agent.connection.requests"
	ConnectionUnanswered  = "shimtrace.agent.connection.unanswered"
)

// Attributes of OpenTelemetry's conventions.
const (
	Service = "service.name"
	Run     = "service.instance.id"
	Host    = "host.name"
	Node    = "k8s.node.name"
	// Engine is who started the shim: "containerd" or "cri-o".
	Engine        = "container.runtime.name"
	Digest        = "oci.manifest.digest" // of a container's image
	Pod           = "k8s.pod.name"
	PodNamespace  = "k8s.namespace.name"
	Container     = "container.id"
	ContainerName = "container.name"
	ErrorType     = "error.type"
	Executable    = "process.executable.name" // tells helpers from all other spans
	StatusCode    = "rpc.response.status_code"
)
