package collate

import "strings"

// rpc is what is known of an agent's RPC by its name, which is the name of the
// span that its handler opens (kata-containers src/agent/src/rpc.rs).
type rpc struct {
	name string
	// request is the method of the agent's service; empty for what is none.
	request string
	// methods are the calls of the shim that cause it; none: it belongs to the
	// sandbox as a whole.
	methods []string
	// ordered: the first of them is the likelier, wherever the guest's clock has it.
	ordered bool
	// once: it is made at most once in the life of what its ids name, and answered
	// before the call that causes it is. Only such a pair tells about clocks.
	once bool
	// life: it is none, but a span of the agent's own that lasts as long as it
	// does. Its children arrive long before it.
	life bool
	// call: it is none, but a call of the shim as its runtime sees it.
	call bool
}

// rpcs are the agent's RPCs and its life-long spans, as of Kata 2.5 to 4.1.
var rpcs = table(
	rpc{name: "create_sandbox", request: "CreateSandbox", methods: create, once: true},
	rpc{name: "create_container", request: "CreateContainer", methods: create, once: true},
	rpc{name: "update_interface", request: "UpdateInterface", methods: create},
	rpc{name: "update_routes", request: "UpdateRoutes", methods: create},
	rpc{name: "add_arp_neighbors", request: "AddARPNeighbors", methods: create},
	rpc{name: "copy_file", request: "CopyFile", methods: create},
	rpc{name: "set_policy", request: "SetPolicy", methods: create},
	rpc{name: "get_guest_details", request: "GetGuestDetails", methods: create},
	rpc{name: "online_cpu_mem", request: "OnlineCPUMem", methods: create},
	rpc{name: "reseed_random_dev", request: "ReseedRandomDev", methods: create},
	rpc{name: "set_guest_date_time", request: "SetGuestDateTime", methods: create},
	rpc{name: "start_container", request: "StartContainer", methods: []string{"Start"}, once: true},
	// Kata does the work of Exec when the exec is started.
	rpc{name: "exec_process", request: "ExecProcess", methods: []string{"Start"}, once: true},
	rpc{name: "signal_process", request: "SignalProcess", methods: []string{"Kill"}},
	rpc{name: "remove_container", request: "RemoveContainer", methods: remove, ordered: true},
	rpc{name: "remove_stale_virtiofs_share_mounts", request: "RemoveStaleVirtiofsShareMounts", methods: remove, ordered: true},
	rpc{name: "destroy_sandbox", request: "DestroySandbox", methods: remove},
	rpc{name: "stats_container", request: "StatsContainer", methods: []string{"Stats"}},
	rpc{name: "get_metrics", request: "GetMetrics", methods: []string{"Stats"}},
	rpc{name: "update_container", request: "UpdateContainer", methods: []string{"Update"}},
	rpc{name: "pause_container", request: "PauseContainer", methods: []string{"Pause"}},
	rpc{name: "resume_container", request: "ResumeContainer", methods: []string{"Resume"}},
	rpc{name: "tty_win_resize", request: "TtyWinResize", methods: []string{"ResizePty"}},
	rpc{name: "close_stdin", request: "CloseStdin", methods: []string{"CloseIO"}},

	rpc{name: "wait_process", request: "WaitProcess"}, // waits on the runtime's own behalf
	rpc{name: "root-span", life: true},
	rpc{name: "start_sandbox", life: true},
	rpc{name: "watch_uevents", life: true},
	rpc{name: "write_stdin", request: "WriteStdin"},
	rpc{name: "read_stdout", request: "ReadStdout"},
	rpc{name: "read_stderr", request: "ReadStderr"},
	rpc{name: "list_interfaces", request: "ListInterfaces"},
	rpc{name: "list_routes", request: "ListRoutes"},
	rpc{name: "get_ip_tables", request: "GetIPTables"},
	rpc{name: "set_ip_tables", request: "SetIPTables"},
	rpc{name: "update_ephemeral_mounts", request: "UpdateEphemeralMounts"},
	rpc{name: "mem_hotplug_by_probe", request: "MemHotplugByProbe"},
	rpc{name: "mem_agent_memcg_set", request: "MemAgentMemcgSet"},
	rpc{name: "mem_agent_compact_set", request: "MemAgentCompactSet"},
	rpc{name: "get_oom_event", request: "GetOOMEvent"},
	rpc{name: "get_volume_stats", request: "GetVolumeStats"},
	rpc{name: "get_diagnostic_data", request: "GetDiagnosticData"},
	rpc{name: "resize_volume", request: "ResizeVolume"},
	rpc{name: "add_swap", request: "AddSwap"},
	rpc{name: "add_swap_path", request: "AddSwapPath"},
	rpc{name: "check", request: "Check"},
	rpc{name: "version", request: "Version"},
)

var (
	create = []string{"Create"}
	remove = []string{"Delete", "Shutdown"}
)

// aliases are the methods of the sandbox service, as the ones that do the same in
// the task service.
var aliases = map[string]string{
	"CreateSandbox":   "Create",
	"StartSandbox":    "Create",
	"StopSandbox":     "Shutdown",
	"ShutdownSandbox": "Shutdown",
}

// taskMethod returns a method by the name that the task service has for what it does.
func taskMethod(method string) string {
	if same, ok := aliases[method]; ok {
		return same
	}
	return method
}

// childOf tells, by the name of a span whose parent is lost, which parent that
// was, where do_<rpc> does not say so.
var childOf = map[string]string{
	"new":                     "start_sandbox",
	"start_sandbox":           "root-span",
	"process":                 "watch_uevents",
	"setup_shared_namespaces": "create_sandbox",
	"destroy":                 "destroy_sandbox",
}

// lostParent returns the RPC that a span of this name is a child of, nil if its
// name does not say.
func lostParent(child string) *rpc {
	if name, ok := strings.CutPrefix(child, "do_"); ok {
		return rpcs[name]
	}
	return rpcs[childOf[child]]
}

// byRequest are the RPCs by their request.
var byRequest = func() map[string]*rpc {
	m := make(map[string]*rpc)
	for _, r := range rpcs {
		if r.request != "" {
			m[r.request] = r
		}
	}
	return m
}()

func table(all ...rpc) map[string]*rpc {
	m := make(map[string]*rpc, len(all))
	for _, r := range all {
		m[r.name] = &r
	}
	return m
}

// causes are the methods that can cause anything in the agent.
var causes = func() map[string]bool {
	m := make(map[string]bool)
	for _, r := range rpcs {
		for _, method := range r.methods {
			m[method] = true
		}
	}
	return m
}()
