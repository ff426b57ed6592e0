package procevents

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ociRuntimes are programs with runc's command line (runc, utils_linux.go and its
// commands; crun, youki and gVisor's runsc have the same).
var ociRuntimes = []string{
	"runc", "crun", "youki", "runsc", "docker-runc",
	"nvidia-container-runtime", "nvidia-container-runtime.cdi", "nvidia-container-runtime.legacy",
}

// ociCommands are what may be said of an OCI runtime's command line.
var ociCommands = []string{
	"create", "start", "run", "exec", "init", "kill", "delete", "pause", "resume", "update",
	"checkpoint", "restore", "state", "ps", "events", "features", "list", "spec",
}

// ociValueFlags are global flags that are followed by a value (containerd/go-runc, Runc.args).
var ociValueFlags = []string{"--root", "--log", "--log-format", "--criu", "--rootless"}

// vmms are what the programs of virtual machine monitors begin with.
var vmms = []string{"qemu-system-", "qemu-kvm", "cloud-hypervisor", "firecracker", "stratovirt", "openvmm"}

const (
	// maxComm is how long the kernel lets a process's name be, in bytes.
	maxComm = 15
	maxName = 64
	maxID   = 128
)

// programName returns the name by which a program was executed. comm is the kernel's name:
// that of the file, or of a script, but cut short, and the program may change it. exe, the
// file, and args have the whole name.
func programName(comm, exe string, args [][]byte) string {
	name := comm
	arg := func(i int) string {
		if i < len(args) {
			return filepath.Base(string(args[i]))
		}
		return ""
	}
	file := filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
	switch {
	case comm == "exe", strings.Trim(comm, "0123456789") == "", strings.HasPrefix(exe, "/memfd:"), strings.Contains(comm, ":["):
		// A program that executes a copy of itself, as runc does.
		if name = arg(0); name == "" || name == "exe" {
			name = strings.TrimPrefix(file, "memfd:")
		}
	case len(comm) >= maxComm:
		for _, long := range []string{file, arg(0), arg(1)} {
			if strings.HasPrefix(long, comm) {
				name = long
				break
			}
		}
	}
	return clean(name, maxName)
}

// clean returns the printable part of a text, cut to limit bytes.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	for len(text) > limit {
		_, n := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-n]
	}
	return text
}

// roleOf returns what a program is, by its name.
func roleOf(name string) Role {
	switch {
	case slices.Contains(ociRuntimes, name):
		return OCIRuntime
	case slices.ContainsFunc(vmms, func(vmm string) bool { return strings.HasPrefix(name, vmm) }):
		return VMM
	}
	return ""
}

// ociCommand is what is taken of an OCI runtime's command line.
type ociCommand struct{ subcommand, container, exec string }

// parseOCI reads an OCI runtime's command line, of which nothing else is kept: the
// subcommand; the container's id, which is the last argument, or with kill the one before
// the signal; and the exec's id, for which runc's shim names the file of the pid
// (containerd, cmd/containerd-shim-runc-v2/process/exec.go).
func parseOCI(args [][]byte) (c ociCommand) {
	at := -1
	for i := 1; i < len(args); i++ {
		arg := string(args[i])
		if slices.Contains(ociValueFlags, arg) {
			i++
			continue
		}
		if slices.Contains(ociCommands, arg) {
			at = i
			break
		}
		if !strings.HasPrefix(arg, "-") {
			return c
		}
	}
	if at < 0 {
		return c
	}
	c.subcommand = string(args[at])
	rest := args[at+1:]
	last := len(rest) - 1
	switch c.subcommand {
	case "init", "features", "list", "spec":
		return c
	case "kill":
		if last > 0 {
			last--
		}
	case "exec":
		for i := range max(0, last) {
			if string(rest[i]) == "--pid-file" {
				name, _ := bytes.CutSuffix(rest[i+1], []byte(".pid"))
				c.exec = identifier(filepath.Base(string(name)))
			}
		}
	}
	if last >= 0 {
		c.container = identifier(string(rest[last]))
	}
	return c
}

// identifier returns the text if it may be one of containerd's ids (containerd,
// pkg/identifiers), otherwise nothing.
func identifier(text string) string {
	ok := len(text) <= maxID && strings.IndexFunc(text, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_.-", r))
	}) < 0 && !strings.HasPrefix(text, "-")
	if !ok {
		return ""
	}
	return text
}
