package listen

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Pattern is where a VMM has its hybrid VSOCK socket.
type Pattern struct {
	// VMM names the VMM and the runtime that starts it; it is for people.
	VMM string
	// Path is the socket's absolute path, with {sandbox} for the sandbox's id, and
	// {user} for the number of the user that the VMM runs as.
	Path string
	// MaxID is how many bytes of a longer id the runtime takes; 0: all.
	MaxID int
}

// DefaultPatterns returns the sockets of Kata 2.5 to 4.1 (Go runtime:
// src/runtime/virtcontainers; runtime-rs: src/runtime-rs/crates/hypervisor).
// QEMU has none: it uses AF_VSOCK, as StratoVirt does.
func DefaultPatterns() []Pattern {
	return []Pattern{
		{VMM: "clh", Path: "/run/vc/vm/{sandbox}/clh.sock"},
		// The directory is called like the VMM's program; of the id it takes what a
		// UUID has (virtcontainers/fc.go, truncateID).
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

// RootlessPatterns returns the sockets of VMMs that Kata runs as users of their own
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
	// placeholder stands for the sandbox's id.
	placeholder = "{sandbox}"
	// userPlaceholder stands for the VMM's user.
	userPlaceholder = "{user}"
)

// Socket returns the path of the socket of a sandbox's VMM, with {user} in it if the
// pattern has that. It fails for a sandbox id or a pattern that makes no path.
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

// maxUsers bounds the users whose directories are looked at.
const maxUsers = 1024

// Resolve returns a path of Socket as it is, and whether there is one: with {user} in
// it that takes a directory for the socket, of a user whose VMM this is. Any user can
// make such a directory; owns decides who is believed.
func Resolve(path string, owns func(uid uint32) bool) (string, bool) {
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

// Candidates returns the paths, with the user in each, that a path of Socket with {user}
// in it may stand for; one without stands for itself.
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
