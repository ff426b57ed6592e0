// Package server finds the process of an inner shim that serves calls, which is not the one
// that made the shim's socket. The relay uses it, and so does package kata.
package server

import (
	"bytes"
	"context"
	"os"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/sleep"
)

// Await calls Find again and again until the process is there, or until ctx is done.
func Await(ctx context.Context, inner, id, socket string, near int) host.Process {
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		if p := Find(inner, id, socket, near); p.PID != 0 {
			return p
		}
		if !sleep.For(ctx, pause) {
			return host.Process{}
		}
	}
}

// Find returns the process of the inner shim that serves the container's sandbox at a
// socket, the zero Process if there is none. near is a process that began shortly before it, 0
// if none is known: it and its successors are looked at first. The credentials of the socket
// name the process that made it, which was its start.
//
// Any local user can run a program with the inner shim's name, and the shim itself,
// with the sandbox's id in its arguments. So the process must act as our own user, be
// in our process namespace and execute the inner shim's file; then its arguments say
// which sandbox it serves. If inner is a script around the real shim, nobody executes
// it: then it is the process that has the socket.
func Find(inner, id, socket string, near int) host.Process {
	exe, err := host.FileOf(inner)
	if err != nil {
		return host.Process{}
	}
	self, err := proc.Process(os.Getpid())
	if err != nil {
		return host.Process{}
	}
	for pid := near; near > 0 && pid <= near+nearby; pid++ {
		if p, ok := executes(pid, exe, self); ok && serves(proc.Args(pid), id) {
			return p
		}
	}
	all := proc.All()
	for _, pid := range all {
		if p, ok := executes(pid, exe, self); ok && serves(proc.Args(pid), id) {
			return p
		}
	}
	sockets := proc.UnixListeners(socket)
	if len(sockets) == 0 {
		return host.Process{}
	}
	for _, pid := range all {
		p, err := proc.Process(pid)
		if err != nil || !like(p, self) {
			continue
		}
		has := func(socket uint64) bool { return proc.HasSocket(pid, socket) }
		// The start command, which has it as well for a moment, ends with its name.
		if slices.ContainsFunc(sockets, has) && !isCommand(proc.Args(pid)) {
			return p
		}
	}
	return host.Process{}
}

const proc = host.Proc("/proc")

// nearby is how many pids a start command and what it runs take at most, as a rule.
const nearby = 128

// executes returns the process with a pid if it is like ours and executes a file.
func executes(pid int, exe host.File, self host.Process) (p host.Process, ok bool) {
	if file, err := proc.Exe(pid); err != nil || file != exe {
		return p, false
	}
	p, err := proc.Process(pid)
	return p, err == nil && p.Exe == exe && like(p, self)
}

// like reports whether a process is of our user and in our process namespace, and is not
// this one.
func like(p, self host.Process) bool {
	return p.PID != self.PID && p.PIDNamespace == self.PIDNamespace && p.RunsAs(uint32(os.Geteuid()))
}

// isCommand reports whether a shim with these arguments is a command that ends by
// itself.
func isCommand(args [][]byte) bool {
	if len(args) == 0 {
		return false
	}
	last := string(args[len(args)-1])
	return last == "start" || last == "delete"
}

// serves reports whether a shim with these arguments serves the container's sandbox:
// all of them have the flag -id, and those that are not the server end with a command.
func serves(args [][]byte, id string) bool {
	if isCommand(args) {
		return false
	}
	for i, arg := range args {
		name, value, joined := bytes.Cut(arg, []byte("="))
		if string(name) != "-id" && string(name) != "--id" {
			continue
		}
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		return string(value) == id
	}
	return false
}
