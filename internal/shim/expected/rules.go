package expected

import (
	"slices"

	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/middleware"
)

// moment says where in its life a call's container or process was.
type moment uint8

const (
	// absent: no Create of the container has been answered yet.
	absent moment = 1 << iota
	// awaited: its end is being waited for.
	awaited
	// ended: its exit was told.
	ended
	// deleting: it is being deleted.
	deleting
	// deleted: it was.
	deleted
)

const gone = ended | deleting | deleted

// Codes of google.rpc.Code.
const (
	unknown            middleware.Code = 2
	invalidArgument    middleware.Code = 3
	notFound           middleware.Code = 5
	failedPrecondition middleware.Code = 9
	internal           middleware.Code = 13
	unavailable        middleware.Code = 14
)

// rule says which failures of which methods belong to a healthy life: those with one
// of the codes, at one of the moments.
type rule struct {
	methods []string
	codes   []middleware.Code
	moments moment
}

// excuses reports whether a call that failed at a moment belongs to a healthy life.
//
// What may fail when the container is deleted may also get no answer then. The shim ends
// when its last container was deleted and it is told to (Shutdown), and the VM with it,
// whatever they are being asked: nerdctl hands on signals to the last.
func (r rule) excuses(c *middleware.Call, at moment) bool {
	if c.Closed {
		at &= deleted
	}
	return r.moments&at != 0 && slices.Contains(r.methods, c.Method) && (c.Closed || slices.Contains(r.codes, c.Code))
}

// taskRules are about the calls that containerd makes (containerd.task.v2 and v3).
//
// runc's shim answers NOT_FOUND for what is not there; Kata's Go shim does so or hands on
// the agent's code; runtime-rs answers UNKNOWN whatever it is (Kata 4.1,
// src/runtime-rs/crates/service/src/task_service.rs, handler_message).
var taskRules = []rule{
	{
		// Who waits for a container asks for its state until there is one: nerdctl's
		// logger ten times a second (nerdctl v2, pkg/logging, getContainerWait), CRI's
		// statistics once a second. And who asks may be late: containerd asks for an
		// exec's state before it does anything with it (containerd 2.4,
		// core/runtime/v2/shim.go, shimTask.Process). runc's shim: "container not
		// created" (cmd/containerd-shim-runc-v2/task/service.go, getContainer), Kata's:
		// "container does not exist" (src/runtime/pkg/containerd-shim-v2/service.go,
		// getContainer).
		methods: []string{"State", "Stats", "Pids", "Connect", "Wait"},
		codes:   []middleware.Code{notFound, unknown},
		moments: absent | deleted,
	},
	{
		// nerdctl's logger waits for a container that may be on its way out.
		methods: []string{"Wait", "State", "Pids"},
		codes:   []middleware.Code{notFound},
		moments: deleting,
	},
	{
		// "cgroups: cgroup deleted": the statistics of what has ended (containerd 1.7 and
		// 2.4, cmd/containerd-shim-runc-v2/task/service.go, Stats); in a VM, of a cgroup
		// that the agent does not have any more.
		methods: []string{"Stats"},
		codes:   []middleware.Code{notFound, unknown, internal, invalidArgument},
		moments: gone,
	},
	{
		// CRI kills an exec that it has waited for, and containers before it deletes them
		// (containerd 2.4, internal/cri/server/container_execsync.go and
		// container_stop.go); nerdctl hands on every signal that it gets, SIGCHLD of its
		// own children too (containerd client's sig-proxy). runc's shim: "process already
		// finished", "cannot kill a deleted process"
		// (cmd/containerd-shim-runc-v2/process, exec.go and deleted_state.go); Kata's
		// takes only SIGKILL and SIGTERM for what has stopped (service.go, Kill).
		methods: []string{"Kill"},
		codes:   []middleware.Code{notFound, unknown, internal, failedPrecondition, invalidArgument},
		moments: gone,
	},
	{
		// The terminal and the input of what has ended: the client has not heard of it.
		methods: []string{"CloseIO", "ResizePty"},
		codes:   []middleware.Code{notFound, unknown, internal, failedPrecondition, invalidArgument, unavailable},
		moments: gone,
	},
	{
		// containerd deletes again what a client deletes, and takes NOT_FOUND for done
		// (containerd 2.4, core/runtime/v2/shim.go, shimTask.delete).
		methods: []string{"Delete"},
		codes:   []middleware.Code{notFound},
		moments: deleted,
	},
}

// agentRules are about what Kata's runtimes ask the agent (grpc.AgentService). The agent
// forgets a process when a WaitProcess has seen its end (Kata 4.1,
// src/agent/src/rpc.rs, do_wait_process); from then on it answers NOT_FOUND, before 4.0
// INTERNAL or INVALID_ARGUMENT (sandbox.rs, find_container_process).
var agentRules = []rule{
	{
		// The runtimes read on until they are told that there is no more.
		methods: []string{kata.ReadStdout, kata.ReadStderr},
		codes:   []middleware.Code{notFound},
		moments: awaited | gone,
	},
	{
		methods: []string{kata.ReadStdout, kata.ReadStderr, kata.WaitProcess},
		codes:   []middleware.Code{notFound, internal, invalidArgument},
		moments: gone,
	},
	{
		methods: []string{kata.WriteStdin, kata.CloseStdin, kata.TtyWinResize, kata.SignalProcess},
		codes:   []middleware.Code{notFound, internal, invalidArgument, unavailable},
		moments: gone,
	},
	{
		// The cgroup of what has ended is gone (rpc.rs, stats_container).
		methods: []string{kata.StatsContainer},
		codes:   []middleware.Code{notFound, internal, invalidArgument},
		moments: gone,
	},
	{
		methods: []string{kata.RemoveContainer},
		codes:   []middleware.Code{notFound, invalidArgument},
		moments: deleted,
	},
}

// verbs are the methods by which the life of a container or process is known.
type verbs struct {
	create, exec, wait, remove string
}

var (
	taskVerbs  = verbs{create: "Create", exec: "Exec", wait: "Wait", remove: "Delete"}
	agentVerbs = verbs{create: kata.CreateContainer, exec: kata.ExecProcess, wait: kata.WaitProcess, remove: kata.RemoveContainer}
)

// Delete reports whether the failure of an inner shim's delete command belongs to a
// healthy life: Kata's Go shim finds nothing of a sandbox that has been deleted and exits
// with status 1 (Kata 4.1, src/runtime/pkg/containerd-shim-v2/service.go, Cleanup, and
// src/runtime/virtcontainers/api.go, CleanupContainer, fetchSandbox). deleted tells that
// the container was deleted by the call of that name before.
func Delete(inner string, status int, deleted bool) bool {
	return deleted && status == 1 && kata.IsShim(inner)
}
