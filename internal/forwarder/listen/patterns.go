package listen

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Pattern says where a VMM has its hybrid VSOCK socket.
type Pattern struct {
	// VMM names the VMM and the runtime that starts it, for people.
	VMM string
	// Path is the socket's absolute path, with {sandbox} for the sandbox's id and
	// {user} for the uid that the VMM runs as.
	Path string
	// MaxID is how many bytes of the id the runtime uses; 0: all.
	MaxID int
}

// DefaultPatterns returns the sockets of Kata 2.5 to 4.1 (Go runtime:
// src/runtime/virtcontainers; runtime-rs: src/runtime-rs/crates/hypervisor).
// QEMU has none: it uses AF_VSOCK, as StratoVirt does.
func DefaultPatterns() []Pattern {
	return []Pattern{
		{VMM: "clh", Path: "/run/vc/vm/{sandbox}/clh.sock"},
		// The directory has the name of the VMM's program. The runtime uses as many bytes of
		// the id as a UUID has digits (virtcontainers/fc.go, truncateID).
		{VMM: "firecracker", Path: "/run/vc/firecracker/{sandbox}/root/kata.hvsock", MaxID: 32},
		{VMM: "dragonball", Path: "/run/kata/{sandbox}/root/kata.hvsock"},
		{VMM: "clh runtime-rs", Path: "/run/kata/{sandbox}/ch-vm.sock"},
		// With the jailer the path depends on the release; without it, there is no
		// root directory.
		{VMM: "firecracker runtime-rs", Path: "/run/kata/firecracker/{sandbox}/root/kata.hvsock"},
		{VMM: "firecracker runtime-rs", Path: "/run/kata/firecracker/{sandbox}/root/run/kata.hvsock"},
		{VMM: "firecracker runtime-rs", Path: "/run/kata/{sandbox}/kata.hvsock"},
		{VMM: "openvmm runtime-rs", Path: "/run/kata/{sandbox}/vsock.sock"},
	}
}

// RootlessPatterns returns the sockets of VMMs that Kata runs as separate users
// (rootless = true): in $XDG_RUNTIME_DIR, which it sets to /run/user/<uid>
// (containerd-shim-v2/create.go, configureNonRootHypervisor; kata-types,
// prefix_with_rootless_dir). QEMU has none there either.
func RootlessPatterns() []Pattern {
	return []Pattern{
		{VMM: "rootless clh", Path: "/run/user/{user}/run/vc/vm/{sandbox}/clh.sock"},
		{VMM: "rootless clh runtime-rs", Path: "/run/user/{user}/run/kata/{sandbox}/ch-vm.sock"},
	}
}

const (
	placeholder     = "{sandbox}"
	userPlaceholder = "{user}"
)

// Socket returns the path of the VMM's socket for a sandbox; {user}, if the pattern has
// it, stays in the path. It fails for a sandbox id or a pattern that makes no path.
func (p Pattern) Socket(sandbox string) (string, error) {
	if err := checkSandbox(sandbox); err != nil {
		return "", err
	}
	if !filepath.IsAbs(p.Path) || !strings.Contains(p.Path, placeholder) {
		return "", fmt.Errorf("hybrid VSOCK path %q: it must be absolute and contain %s", p.Path, placeholder)
	}
	if p.MaxID > 0 {
		sandbox = sandbox[:min(len(sandbox), p.MaxID)]
	}
	return filepath.Clean(strings.ReplaceAll(p.Path, placeholder, sandbox)), nil
}

// maxUsers bounds the user directories looked at.
const maxUsers = 1024

// resolve replaces {user} in a path returned by Socket; a path without it is returned
// unchanged. It returns false unless the socket's directory exists for a user whose VMM
// is the sandbox's. Any user can make such a directory, so owns decides whose is
// believed.
func resolve(path string, owns func(uid uint32) bool) (string, bool) {
	if !strings.Contains(path, userPlaceholder) {
		return path, true
	}
	if owns == nil {
		return "", false
	}
	for found, uid := range Candidates(path) {
		if owns(uid) {
			return found, true
		}
	}
	return "", false
}

// Candidates returns the existing paths, with their uid, that a path returned by Socket
// may stand for. A path without {user} stands for itself, with uid 0.
func Candidates(path string) iter.Seq2[string, uint32] {
	return func(yield func(string, uint32) bool) {
		before, after, ok := strings.Cut(path, userPlaceholder)
		if !ok {
			yield(path, 0)
			return
		}
		users, err := os.Open(before)
		if err != nil {
			return
		}
		names, _ := users.Readdirnames(maxUsers)
		users.Close()
		for _, name := range names {
			uid, err := strconv.ParseUint(name, 10, 32)
			if err != nil {
				continue
			}
			found := before + name + after
			if _, err := os.Lstat(filepath.Dir(found)); err == nil && !yield(found, uint32(uid)) {
				return
			}
		}
	}
}

// listenPath returns the path that the VMM connects to when the agent does: each port
// has its own socket beside the VMM's.
func (p Pattern) listenPath(sandbox string) (string, error) {
	path, err := p.Socket(sandbox)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s_%d", path, Port), nil
}

// checkSandbox refuses an id that would lead out of its directory. containerd
// allows no such id.
func checkSandbox(id string) error {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return fmt.Errorf("sandbox id %q cannot be part of a path", id)
	}
	return nil
}
