package kata

// Call describes one of the shim's calls as Kata's runtimes serve it, each with a span.
type Call struct {
	// Method is the method of the task service or the sandbox service.
	Method string
	// As is the task service's equivalent of a sandbox service's method.
	As string
	// Sandbox: the method is the sandbox service's.
	Sandbox bool
	// Go is the name of the Go runtime's span, in its package GoPackage
	// (src/runtime/pkg/containerd-shim-v2/service.go and create.go). Cleanup is
	// missing: it is the command "delete".
	Go string
	// Rust is the name of runtime-rs's request, found in its spans' arguments
	// (src/runtime-rs/crates/runtimes/common/src/types, Request of task and sandbox).
	Rust string
	// Waits: it lasts as long as what it waits for.
	Waits bool
}

// Calls are the shim's calls.
var Calls = [...]Call{
	{Method: "State", Go: "State", Rust: "StateProcess"},
	{Method: "Create", Go: "create", Rust: "CreateContainer"},
	{Method: "Start", Go: "Start", Rust: "StartProcess"},
	{Method: "Delete", Go: "Delete", Rust: "DeleteProcess"},
	{Method: "Pids", Go: "Pids", Rust: "Pid"},
	{Method: "Pause", Go: "Pause", Rust: "PauseContainer"},
	{Method: "Resume", Go: "Resume", Rust: "ResumeContainer"},
	{Method: "Checkpoint", Go: "Checkpoint"},
	{Method: "Kill", Go: "Kill", Rust: "KillProcess"},
	{Method: "Exec", Go: "Exec", Rust: "ExecProcess"},
	{Method: "ResizePty", Go: "ResizePty", Rust: "ResizeProcessPTY"},
	{Method: "CloseIO", Go: "CloseIO", Rust: "CloseProcessIO"},
	{Method: "Update", Go: "Update", Rust: "UpdateContainer"},
	{Method: "Wait", Go: "Wait", Rust: "WaitProcess", Waits: true},
	{Method: "Stats", Go: "Stats", Rust: "StatsContainer"},
	{Method: "Connect", Go: "Connect", Rust: "ConnectContainer"},
	{Method: "Shutdown", Go: "Shutdown", Rust: "ShutdownContainer"},

	{Method: "CreateSandbox", As: "Create", Sandbox: true, Rust: "CreateSandbox"},
	{Method: "StartSandbox", As: "Create", Sandbox: true, Rust: "StartSandbox"},
	{Method: "Platform", Sandbox: true, Rust: "Platform"},
	{Method: "StopSandbox", As: "Shutdown", Sandbox: true, Rust: "StopSandbox"},
	{Method: "WaitSandbox", Sandbox: true, Rust: "WaitSandbox", Waits: true},
	{Method: "SandboxStatus", Sandbox: true, Rust: "SandboxStatus"},
	{Method: "Ping", Sandbox: true, Rust: "Ping"},
	{Method: "ShutdownSandbox", As: "Shutdown", Sandbox: true, Rust: "ShutdownSandbox"},
}

// TaskMethod returns the task service's equivalent of a method of the shim, or the
// method itself if there is none.
func TaskMethod(method string) string {
	for i := range Calls {
		if Calls[i].Method == method && Calls[i].As != "" {
			return Calls[i].As
		}
	}
	return method
}
