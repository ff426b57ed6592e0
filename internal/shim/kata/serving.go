package kata

import (
	"bytes"
	"os"
	"slices"

	"github.com/shimtrace/shimtrace/internal/host"
)

// servingProcess returns the process of the inner shim that serves the container's
// sandbox at a socket, the zero Process if there is none. The credentials of the socket
// name the process that made it, which was its start.
//
// Any local user can run a program with the inner shim's name, and the shim itself,
// with the sandbox's id in its arguments. So the process must act as our own user, be
// in our process namespace and execute the inner shim's file; then its arguments say
// which sandbox it serves. If inner is a script around the real shim, nobody executes
// it: then it is the process that has the socket.
func servingProcess(inner, id, socket string) host.Process {
	exe, err := host.FileOf(inner)
	if err != nil {
		return host.Process{}
	}
	all := processesLikeOurs()
	for _, p := range all {
		if p.Exe == exe && serves(proc.Args(p.PID), id) {
			return p
		}
	}
	sockets := proc.UnixListeners(socket)
	if len(sockets) == 0 {
		return host.Process{}
	}
	for _, p := range all {
		has := func(socket uint64) bool { return proc.HasSocket(p.PID, socket) }
		// The start command, which has it as well for a moment, ends with its name.
		if slices.ContainsFunc(sockets, has) && !isCommand(proc.Args(p.PID)) {
			return p
		}
	}
	return host.Process{}
}

const proc = host.Proc("/proc")

// processesLikeOurs returns the processes of our user in our process namespace, but for
// this one.
func processesLikeOurs() (all []host.Process) {
	self, err := proc.Process(os.Getpid())
	if err != nil {
		return nil
	}
	for _, pid := range proc.All() {
		p, err := proc.Process(pid)
		if err == nil && p.PID != self.PID && p.PIDNamespace == self.PIDNamespace && p.RunsAs(uint32(os.Geteuid())) {
			all = append(all, p)
		}
	}
	return all
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
