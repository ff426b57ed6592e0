package listen

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKataLayouts: where Kata 4.1.0 has its sockets. Each line names its source in
// kata-containers at 4.1.0.
func TestKataLayouts(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	known := make(map[string]bool)
	for _, p := range append(DefaultPatterns(), RootlessPatterns()...) {
		path, err := p.Socket(id)
		if err != nil {
			t.Fatal(err)
		}
		known[path] = true
	}
	for where, path := range map[string]string{
		// src/runtime/virtcontainers
		"clh.go vsockSocketPath, fs.go RunVMStoragePath":           "/run/vc/vm/" + id + "/clh.sock",
		"fc.go setPaths, truncateID":                               "/run/vc/firecracker/" + id[:32] + "/root/kata.hvsock",
		"clh.go, rootlessfs.go, rootless.go VmmUserRuntimeDir":     "/run/user/{user}/run/vc/vm/" + id + "/clh.sock",
		"runtime-rs dragonball/inner_hypervisor.rs, utils.rs":      "/run/kata/" + id + "/root/kata.hvsock",
		"runtime-rs ch/utils.rs get_vsock_path":                    "/run/kata/" + id + "/ch-vm.sock",
		"runtime-rs ch/utils.rs, kata-types prefix_with_rootless…": "/run/user/{user}/run/kata/" + id + "/ch-vm.sock",
		"runtime-rs firecracker/inner_hypervisor.rs, jailed":       "/run/kata/firecracker/" + id + "/root/kata.hvsock",
		"runtime-rs firecracker/inner_hypervisor.rs":               "/run/kata/" + id + "/kata.hvsock",
		"runtime-rs openvmm/inner_hypervisor.rs":                   "/run/kata/" + id + "/vsock.sock",
	} {
		if !known[path] {
			t.Errorf("%s: %s is not known", where, path)
		}
	}
}

// TestHybridFactory: the Go runtime's factory has made the VM under another name before
// the sandbox gets it through a link.
func TestHybridFactory(t *testing.T) {
	opts, path := at(t, "vc/vm/{sandbox}/clh.sock")
	vms := filepath.Dir(filepath.Dir(path))
	mkdir(t, filepath.Join(vms, "5a0f5a0f"))
	arrived, stop := hybrid(t, opts)
	if err := os.Symlink(filepath.Join(vms, "5a0f5a0f"), filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	conn := vmm(t, filepath.Join(vms, "5a0f5a0f", filepath.Base(path))) // as the VMM knows it
	a := await(t, arrived)
	if a.from.Sandbox != "pod" {
		t.Errorf("comes from %+v", a.from)
	}
	a.carries(t, conn, "spans")
	stop()
	if names := entries(t, filepath.Join(vms, "5a0f5a0f")); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// TestHybridRootless: the VMM runs as a user that Kata has made for it, with the socket
// in that user's directory in /run/user. Directories of other users get no listener, and
// connections to their sockets are not the sandbox's.
func TestHybridRootless(t *testing.T) {
	needRoot(t)
	const vmmUser, liar = 23456, 12345
	root := t.TempDir()
	pattern := filepath.Join(root, "user/{user}/run/vc/vm/{sandbox}/clh.sock")
	made := func(uid int) string {
		dir := strings.NewReplacer("{user}", "23456", "{sandbox}", "pod").Replace(filepath.Dir(pattern))
		if uid == liar {
			dir = strings.Replace(dir, "23456", "12345", 1)
		}
		mkdir(t, dir)
		openUp(t, dir)
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	theirs := made(liar)
	start(t, asUser(liar), "sleep").ExpectPrefix("ready") // not the shim's
	// The shim is a process below which only the VMM is.
	inner := start(t, nil, "parent", "23456")
	inner.ExpectPrefix("ready")
	arrived, _ := hybrid(t, HybridOptions{
		Patterns: []Pattern{{VMM: "test", Path: pattern}},
		Owns:     shim(t, inner.PID()).Owns,
	})
	ours := made(vmmUser)
	path := filepath.Join(ours, "clh.sock_10240")
	conn := vmm(t, path)
	await(t, arrived).carries(t, conn, "spans")
	if names := entries(t, theirs); len(names) != 0 {
		t.Errorf("in another user's directory: %v", names)
	}
}

// TestHybridLate: a directory that appears when nothing is expected any more is found,
// and one that is expected for long is found in time.
func TestHybridLate(t *testing.T) {
	opts, path := at(t, "vm/{sandbox}/clh.sock")
	opts.Pace = unhurried()
	arrived, _ := hybrid(t, opts)
	mkdir(t, filepath.Dir(path))
	conn := vmm(t, path)
	await(t, arrived).carries(t, conn, "spans")
}
