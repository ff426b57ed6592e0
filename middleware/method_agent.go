package middleware

import "strings"

// agentService is the service by which a runtime asks the Kata agent in its VM
// (kata-containers src/libs/protocols/protos/agent.proto).
const agentService = "grpc.AgentService"

// agentFields has the fields of the requests that are about a container or a
// sandbox, as of Kata 2.5 to 4.1.
var agentFields = map[string]fields{
	"CreateSandbox":   {sandboxID: 5},
	"CreateContainer": {containerID: 1, execID: 2},
	"StartContainer":  {containerID: 1},
	"RemoveContainer": {containerID: 1},
	"ExecProcess":     {containerID: 1, execID: 2},
	"SignalProcess":   {containerID: 1, execID: 2, signal: 3},
	"WaitProcess":     {containerID: 1, execID: 2, exitStatus: 1},
	"UpdateContainer": {containerID: 1},
	"StatsContainer":  {containerID: 1},
	"PauseContainer":  {containerID: 1},
	"ResumeContainer": {containerID: 1},
	"WriteStdin":      {containerID: 1, execID: 2},
	"ReadStdout":      {containerID: 1, execID: 2},
	"ReadStderr":      {containerID: 1, execID: 2},
	"CloseStdin":      {containerID: 1, execID: 2},
	"TtyWinResize":    {containerID: 1, execID: 2},
}

// agentEndless are the requests that wait: for a process, its output or its
// reading, or for the kernel to run out of memory.
var agentEndless = map[string]bool{
	"WaitProcess": true,
	"ReadStdout":  true,
	"ReadStderr":  true,
	"WriteStdin":  true,
	"GetOOMEvent": true,
}

// internal is google.rpc.Code's INTERNAL.
const internal Code = 13

// nothingMore tells that the answer, although an error, is only how a request ends that
// waits: at the end of a process's output with "eof" or "read meet eof", under a code
// that depends on the agent's version, and at the end of the sandbox (src/agent/src/rpc.rs,
// do_read_stream and get_oom_event).
func (c *Call) nothingMore() bool {
	switch {
	case c.method.kind != "Agent":
		return false
	case c.method.name == "ReadStdout" || c.method.name == "ReadStderr":
		return strings.HasSuffix(c.Message, "eof")
	}
	return c.method.name == "GetOOMEvent" && c.Code == internal
}
