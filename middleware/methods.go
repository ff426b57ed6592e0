package middleware

import "google.golang.org/protobuf/encoding/protowire"

// Method says what is known of a method before any call of it. The zero Method knows
// nothing: its calls are traced all the same.
type Method struct {
	Fields
	// Waits: a call lasts as long as what it waits for. Such a call is never slow, and the
	// lack of an answer is no failure.
	Waits bool
	// Last: the server may end without an answer.
	Last bool
	// FirstProcess: an exec id that is the container's id means the container's first
	// process, as an empty one does.
	FirstProcess bool
	// Over reports whether an answer, although an error, is only how the waiting ends: a
	// quiet call is not recorded for it. It is asked of answered calls and must not block.
	// nil: every error is a failure.
	Over func(*Call) bool
}

// Fields are the numbers of the fields that are read in a method's messages, at their
// top level; 0: there is none, or it is not wanted.
type Fields struct {
	// Of the request: texts; Signal is a number, and Options a google.protobuf.Any in
	// which a PodSandboxConfig of CRI tells of the pod.
	ContainerID, ExecID, SandboxID, Bundle, Signal, Options protowire.Number
	// Of the answer: numbers; ExitedAt is a google.protobuf.Timestamp. Where there is
	// none, each answer with an exit status tells of an exit.
	PID, ExitStatus, ExitedAt protowire.Number
}

// WithMethods sets what is known of the methods that are called, by service
// ("containerd.task.v3.Task") and name ("Create"). known is asked when a method is new,
// from any goroutine; the names are a peer's. Default: ContainerdMethod.
func WithMethods(known func(service, name string) Method) Option {
	return func(o *options) { o.known = known }
}

// ContainerdMethod knows the services by which containerd calls shims: Task
// (api/runtime/task/v2 and v3, the same numbers) and Sandbox (api/runtime/sandbox/v1), as
// of containerd/api v1.12. A program with services of its own may ask it for all others.
func ContainerdMethod(service, name string) Method {
	table := containerdServices[service]
	return Method{
		Fields: containerdFields[table][name],
		Waits:  name == "Wait" || name == "WaitSandbox",
		Last:   table == "Task" && name == "Shutdown",
	}
}

var containerdServices = map[string]string{
	"containerd.task.v2.Task":               "Task",
	"containerd.task.v3.Task":               "Task",
	"containerd.runtime.sandbox.v1.Sandbox": "Sandbox",
}

var containerdFields = map[string]map[string]Fields{
	"Task": {
		"State":      {ContainerID: 1, ExecID: 2, PID: 3},
		"Create":     {ContainerID: 1, Bundle: 2, PID: 1},
		"Start":      {ContainerID: 1, ExecID: 2, PID: 1},
		"Delete":     {ContainerID: 1, ExecID: 2, PID: 1, ExitStatus: 2, ExitedAt: 3},
		"Pids":       {ContainerID: 1},
		"Pause":      {ContainerID: 1},
		"Resume":     {ContainerID: 1},
		"Checkpoint": {ContainerID: 1},
		"Kill":       {ContainerID: 1, ExecID: 2, Signal: 3},
		"Exec":       {ContainerID: 1, ExecID: 2},
		"ResizePty":  {ContainerID: 1, ExecID: 2},
		"CloseIO":    {ContainerID: 1, ExecID: 2},
		"Update":     {ContainerID: 1},
		"Wait":       {ContainerID: 1, ExecID: 2, ExitStatus: 1, ExitedAt: 2},
		"Stats":      {ContainerID: 1},
		"Connect":    {ContainerID: 1, PID: 2},
		"Shutdown":   {ContainerID: 1},
	},
	"Sandbox": {
		"CreateSandbox":   {SandboxID: 1, Bundle: 2, Options: 4},
		"StartSandbox":    {SandboxID: 1, PID: 1},
		"Platform":        {SandboxID: 1},
		"StopSandbox":     {SandboxID: 1},
		"WaitSandbox":     {SandboxID: 1, ExitStatus: 1, ExitedAt: 2},
		"SandboxStatus":   {SandboxID: 1, PID: 2},
		"PingSandbox":     {SandboxID: 1},
		"ShutdownSandbox": {SandboxID: 1},
		"SandboxMetrics":  {SandboxID: 1},
		"UpdateSandbox":   {SandboxID: 1},
	},
}
