package shim

import (
	"bytes"
	"os"

	"github.com/shimtrace/shimtrace/internal/host"
)

// servingProcess returns the process of the inner shim that serves the container's
// sandbox, the zero Process if there is none. The credentials of its socket name the
// process that made the socket, which was its start.
//
// Any local user can run a program with the inner shim's name, and the shim itself,
// with the sandbox's id in its arguments. So the process must act as our own user, be
// in our process namespace and execute the inner shim's file; then its arguments say
// which sandbox it serves.
func servingProcess(inner, id string) host.Process {
	const proc = host.Proc("/proc")
	exe, err := host.FileOf(inner)
	if err != nil {
		return host.Process{}
	}
	self, err := proc.Process(os.Getpid())
	if err != nil {
		return host.Process{}
	}
	for _, pid := range proc.All() {
		p, err := proc.Process(pid)
		if err != nil || p.Exe != exe || p.PIDNamespace != self.PIDNamespace || !p.RunsAs(uint32(os.Geteuid())) {
			continue
		}
		if serves(proc.Args(pid), id) {
			return p
		}
	}
	return host.Process{}
}

// serves reports whether a shim with these arguments serves the container's sandbox:
// all of them have the flag -id, and those that are not the server end with a command.
func serves(args [][]byte, id string) bool {
	if len(args) == 0 {
		return false
	}
	switch last := string(args[len(args)-1]); last {
	case "start", "delete":
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
