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

// endOfStream tells that the agent answered with what it says at the end of a
// process's output, which is no failure: "eof" or "read meet eof", under a code
// that depends on its version (src/agent/src/rpc.rs, do_read_stream).
func (c *Call) endOfStream() bool {
	return c.method.kind == "Agent" && strings.HasPrefix(c.method.name, "ReadStd") && strings.HasSuffix(c.Message, "eof")
}
