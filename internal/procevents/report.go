package procevents

import "time"

// Report tells of a helper, as the guard passes it on to the relay of its sandbox.
type Report struct {
	Kind Kind `json:"kind"`
	PID  int  `json:"pid,omitempty"`
	// Start is when the process began, in clock ticks since the boot: with PID it is unique;
	// 0 if it was gone before that could be read.
	Start uint64 `json:"start,omitempty"`
	// Above is the helper that began this one; 0: the inner shim itself.
	Above int `json:"above,omitempty"`
	// Forked and At, on CLOCK_MONOTONIC, are when the process was made, and when what is
	// told of happened.
	Forked time.Duration `json:"forked_ns,omitempty"`
	At     time.Duration `json:"at_ns,omitempty"`

	// Program is the name of the file that was executed; empty if the process was gone
	// before that could be read. It is printable, and at most 64 bytes long.
	Program string `json:"program,omitempty"`
	Role    Role   `json:"role,omitempty"`
	// Of OCI runtimes: the subcommand, and the ids of the container and the exec that it is
	// for, where these are known positions of the command line. Of Inside: of the OCI
	// runtime that has made the process.
	Subcommand string `json:"subcommand,omitempty"`
	Container  string `json:"container,omitempty"`
	Exec       string `json:"exec,omitempty"`

	// Of Ended: the wait status, and the processor time of the process without its
	// children; 0: unknown.
	Status uint32        `json:"status,omitempty"`
	CPU    time.Duration `json:"cpu_ns,omitempty"`
	// Lost: the kernel has dropped events, this one among them perhaps: the moment is when
	// it was noticed, the status is unknown. With Dropped, how many.
	Lost int `json:"lost,omitempty"`
}

// Kind says what a Report tells.
type Kind string

const (
	// Began: a helper executes its program.
	Began Kind = "began"
	// Ended: a helper has ended.
	Ended Kind = "ended"
	// Inside: a process executes a program in a container, and is not followed any more.
	Inside Kind = "inside"
	// Runs: a helper was there when it was looked for. Listed follows the last of them:
	// helpers that are not among them have ended.
	Runs   Kind = "runs"
	Listed Kind = "listed"
	// Dropped: the kernel has dropped events, of whatever processes.
	Dropped Kind = "dropped"
	// Over: the root has ended. It is the last report: what is below it is not followed any
	// more.
	Over Kind = "over"
)

// Role is what a helper is, as far as its program says.
type Role string

const (
	// OCIRuntime is runc and its like.
	OCIRuntime Role = "oci_runtime"
	// Hook is what an OCI runtime executes, as the container's configuration says.
	Hook Role = "hook"
	// VMM is a virtual machine monitor.
	VMM Role = "vmm"
)
