package listen

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Pattern is where a VMM has its hybrid VSOCK socket.
type Pattern struct {
	// VMM names the VMM and the runtime that starts it; it is for people.
	VMM string
	// Path is the socket's absolute path, with {sandbox} for the sandbox's id.
	Path string
}

// DefaultPatterns returns the sockets of Kata 2.5 to 4.1 (Go runtime:
// src/runtime/virtcontainers; runtime-rs: src/runtime-rs/crates/hypervisor).
// QEMU has none: it uses AF_VSOCK.
func DefaultPatterns() []Pattern {
	return []Pattern{
		{"clh", "/run/vc/vm/{sandbox}/clh.sock"},
		{"firecracker", "/run/vc/firecracker/{sandbox}/root/kata.hvsock"},
		{"dragonball", "/run/kata/{sandbox}/root/kata.hvsock"},
		{"clh runtime-rs", "/run/kata/{sandbox}/ch-vm.sock"},
		// With the jailer the path depends on the release; without it, there is no
		// root directory.
		{"firecracker runtime-rs", "/run/kata/firecracker/{sandbox}/root/kata.hvsock"},
		{"firecracker runtime-rs", "/run/kata/firecracker/{sandbox}/root/run/kata.hvsock"},
		{"firecracker runtime-rs", "/run/kata/{sandbox}/kata.hvsock"},
		{"openvmm runtime-rs", "/run/kata/{sandbox}/vsock.sock"},
	}
}

// placeholder stands for the sandbox's id.
const placeholder = "{sandbox}"

// Socket returns the path of the socket of a sandbox's VMM. It fails for a sandbox
// id or a pattern that makes no path.
func (p Pattern) Socket(sandbox string) (string, error) {
	if err := checkSandbox(sandbox); err != nil {
		return "", err
	}
	if !filepath.IsAbs(p.Path) || !strings.Contains(p.Path, placeholder) {
		return "", fmt.Errorf("hybrid VSOCK path %q: it must be absolute and contain %s", p.Path, placeholder)
	}
	return filepath.Clean(strings.ReplaceAll(p.Path, placeholder, sandbox)), nil
}

// listenPath is where the VMM of a sandbox connects to for the agent: a port has
// a socket of its own beside the VMM's.
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
