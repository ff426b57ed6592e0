package kata

// Requests that other packages name.
const (
	CreateContainer = "CreateContainer"
	ExecProcess     = "ExecProcess"
	SignalProcess   = "SignalProcess"
	WaitProcess     = "WaitProcess"
	RemoveContainer = "RemoveContainer"
	StatsContainer  = "StatsContainer"
	ReadStdout      = "ReadStdout"
	ReadStderr      = "ReadStderr"
	WriteStdin      = "WriteStdin"
	CloseStdin      = "CloseStdin"
	TtyWinResize    = "TtyWinResize"
)

// Request describes a request to the agent, whose handler opens a span
// (src/agent/src/rpc.rs).
type Request struct {
	// Name is the method, of AgentService unless Health is set.
	Name   string
	Health bool
	// Span is the name of the agent's span.
	Span string

	// Numbers of the fields that are read (src/libs/protocols/protos/agent.proto); 0:
	// the message has none. ExitStatus is in the answer, the others in the request.
	ContainerID, ExecID, SandboxID, Signal, ExitStatus int32

	// CausedBy are the shim's calls that make the runtime send it, by their names in
	// the task service; none: it is sent without a call, or the cause is unknown.
	// Ordered: the first of them is the likelier.
	CausedBy []string
	Ordered  bool
	// Once: it is sent at most once in the life of what its ids name, and answered
	// before the call that causes it.
	Once bool
	// SetsClock: it sets the guest's clock.
	SetsClock bool

	// Waits: it lasts as long as what it waits for.
	Waits bool
	// EndCode and EndText mark an answer that ends the waiting and is no failure: a
	// code of google.rpc.Code, or the end of a message; 0 and empty: none is.
	EndCode uint32
	EndText string
	// Last: the agent may end without answering it.
	Last bool
	// Frequent: it comes often and says little, so by default it is recorded only if it
	// fails.
	Frequent bool
}

// Requests are the requests to the agent.
var Requests = [...]Request{
	// The runtimes read to the end of a process's output. The agent reports that with
	// "eof" or "read meet eof", under a code that depends on its version (rpc.rs,
	// do_read_stream).
	{Name: ReadStdout, Span: "read_stdout", ContainerID: 1, ExecID: 2, Waits: true, EndText: "eof", Frequent: true},
	{Name: ReadStderr, Span: "read_stderr", ContainerID: 1, ExecID: 2, Waits: true, EndText: "eof", Frequent: true},
	{Name: WriteStdin, Span: "write_stdin", ContainerID: 1, ExecID: 2, Waits: true, Frequent: true}, // until the process reads
	// The runtime sends it without a call.
	{Name: WaitProcess, Span: "wait_process", ContainerID: 1, ExecID: 2, ExitStatus: 1, Waits: true, Frequent: true},
	// It waits for an out-of-memory event; at the end of the sandbox the agent answers
	// INTERNAL (rpc.rs, get_oom_event).
	{Name: "GetOOMEvent", Span: "get_oom_event", Waits: true, EndCode: 13, Frequent: true},
	{Name: "Check", Health: true, Span: "check", Frequent: true},
	{Name: "Version", Health: true, Span: "version"},

	// Create creates the sandbox and its containers.
	{Name: "CreateSandbox", Span: "create_sandbox", SandboxID: 5, CausedBy: create, Once: true},
	{Name: CreateContainer, Span: "create_container", ContainerID: 1, ExecID: 2, CausedBy: create, Once: true},
	{Name: "UpdateInterface", Span: "update_interface", CausedBy: create},
	{Name: "UpdateRoutes", Span: "update_routes", CausedBy: create},
	{Name: "AddARPNeighbors", Span: "add_arp_neighbors", CausedBy: create},
	{Name: "CopyFile", Span: "copy_file", CausedBy: create},
	{Name: "SetPolicy", Span: "set_policy", CausedBy: create},
	{Name: "GetGuestDetails", Span: "get_guest_details", CausedBy: create},
	{Name: "OnlineCPUMem", Span: "online_cpu_mem", CausedBy: create},
	{Name: "ReseedRandomDev", Span: "reseed_random_dev", CausedBy: create},
	{Name: "SetGuestDateTime", Span: "set_guest_date_time", CausedBy: create, SetsClock: true},

	{Name: "StartContainer", Span: "start_container", ContainerID: 1, CausedBy: []string{"Start"}, Once: true},
	// The runtime asks for it when the exec is started, not in Exec
	// (src/runtime/pkg/containerd-shim-v2/start.go, startExec).
	{Name: ExecProcess, Span: "exec_process", ContainerID: 1, ExecID: 2, CausedBy: []string{"Start"}, Once: true},
	{Name: SignalProcess, Span: "signal_process", ContainerID: 1, ExecID: 2, Signal: 3, CausedBy: []string{"Kill"}},
	{Name: RemoveContainer, Span: "remove_container", ContainerID: 1, CausedBy: remove, Ordered: true},
	{Name: "RemoveStaleVirtiofsShareMounts", Span: "remove_stale_virtiofs_share_mounts", CausedBy: remove, Ordered: true},
	{Name: "DestroySandbox", Span: "destroy_sandbox", CausedBy: remove, Last: true},
	{Name: StatsContainer, Span: "stats_container", ContainerID: 1, CausedBy: []string{"Stats"}},
	{Name: "GetMetrics", Span: "get_metrics", CausedBy: []string{"Stats"}},
	{Name: "UpdateContainer", Span: "update_container", ContainerID: 1, CausedBy: []string{"Update"}},
	{Name: "PauseContainer", Span: "pause_container", ContainerID: 1, CausedBy: []string{"Pause"}},
	{Name: "ResumeContainer", Span: "resume_container", ContainerID: 1, CausedBy: []string{"Resume"}},
	{Name: TtyWinResize, Span: "tty_win_resize", ContainerID: 1, ExecID: 2, CausedBy: []string{"ResizePty"}},
	{Name: CloseStdin, Span: "close_stdin", ContainerID: 1, ExecID: 2, CausedBy: []string{"CloseIO"}},

	{Name: "ListInterfaces", Span: "list_interfaces"},
	{Name: "ListRoutes", Span: "list_routes"},
	{Name: "GetIPTables", Span: "get_ip_tables"},
	{Name: "SetIPTables", Span: "set_ip_tables"},
	{Name: "UpdateEphemeralMounts", Span: "update_ephemeral_mounts"},
	{Name: "MemHotplugByProbe", Span: "mem_hotplug_by_probe"},
	{Name: "MemAgentMemcgSet", Span: "mem_agent_memcg_set"},
	{Name: "MemAgentCompactSet", Span: "mem_agent_compact_set"},
	{Name: "GetVolumeStats", Span: "get_volume_stats"},
	{Name: "GetDiagnosticData", Span: "get_diagnostic_data"},
	{Name: "ResizeVolume", Span: "resize_volume"},
	{Name: "AddSwap", Span: "add_swap"},
	{Name: "AddSwapPath", Span: "add_swap_path"},
}

var (
	create = []string{"Create"}
	remove = []string{"Delete", "Shutdown"}
)

// Service returns the service of the request.
func (r *Request) Service() string {
	if r.Health {
		return healthService
	}
	return AgentService
}

// RequestNamed returns the request of that name, nil if it is unknown.
func RequestNamed(name string) *Request {
	for i := range Requests {
		if Requests[i].Name == name {
			return &Requests[i]
		}
	}
	return nil
}

// FrequentRequests returns the names of frequent requests.
func FrequentRequests() (names []string) {
	for i := range Requests {
		if Requests[i].Frequent {
			names = append(names, Requests[i].Name)
		}
	}
	return names
}
