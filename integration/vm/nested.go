package vm

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/shimtrace/shimtrace/integration/rig"

	"github.com/shimtrace/shimtrace/integration/toolset"
)

//go:embed boot-guest.sh
var bootGuestScript string

const (
	hostCID = 2

	guestKernel    = "/guest/vmlinuz"
	guestInitramfs = "/guest/initramfs"
	bootGuest      = "bin/boot-guest"
)

// NestedOptions are what a guest with guests is made of.
type NestedOptions struct {
	// Files and Services are the host's, as in [HybridOptions]. The host's
	// services run before any guest does.
	Files    map[string]string
	Services []string
	// GuestFiles and GuestServices are the same of every guest in it. $VM_CID
	// tells them apart.
	GuestFiles    map[string]string
	GuestServices []string
	// Guests are the CIDs of the guests that are booted at once, each above 2.
	Guests []uint32
	// Log gets the console's lines, if not nil.
	Log io.Writer
}

// A Host is a guest with guests of its own. Lines of their consoles are lines of
// its console, beginning with "guest <cid>: ".
type Host struct{ *Guest }

// nested boots a guest that has AF_VSOCK and guests of its own, and returns when
// the services of all have been started. Close ends them all.
func nested(ctx context.Context, opts NestedOptions) (*Host, error) {
	p, err := findParts()
	if err != nil {
		return nil, err
	}
	g, err := newGuest(opts.Log)
	if err != nil {
		return nil, err
	}
	h := &Host{g}
	if err := h.boot(ctx, p, opts); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// nestedEnv names the environment variable that lets tests start nested guests. A
// host in software emulation, with guests of its own, needs a machine for itself.
const nestedEnv = "SHIMTRACE_NESTED"

// StartNested is Nested for the length of a test. When the machine lacks a part,
// the test is skipped, or fails if CI is set in the environment.
func StartNested(t rig.TB, opts NestedOptions) *Host {
	t.Helper()
	if os.Getenv(nestedEnv) == "" {
		t.Skipf("guests in a guest take minutes: they run where %s is set, as make test-vm does", nestedEnv)
	}
	h, err := nested(t.Context(), opts)
	if err != nil {
		return started(t, h, nil, err)
	}
	return started(t, h, h.Guest, nil)
}

func (h *Host) boot(ctx context.Context, p Parts, opts NestedOptions) error {
	inner := filepath.Join(h.dir, "guest-initramfs")
	im := image{modules: guestModules, files: opts.GuestFiles, services: opts.GuestServices}
	if err := im.write(inner, p); err != nil {
		return err
	}
	files, err := qemuFiles(ctx, p)
	if err != nil {
		return err
	}
	files[guestKernel], files[guestInitramfs] = p.Kernel, inner
	for name, from := range opts.Files {
		files[name] = from
	}
	im = image{modules: hostModules, files: files, services: opts.Services,
		texts: map[string]string{bootGuest: bootGuestScript}}
	// With two processors, QEMU 7.2's emulation of virtualization fails now and
	// then, and resets a guest in the middle of its boot.
	if err := h.Guest.boot(ctx, p, im, hardware{cid: hostCID, memory: 1500, cpus: 1}); err != nil {
		return err
	}
	for _, cid := range opts.Guests {
		if err := h.startGuest(ctx, cid); err != nil {
			return err
		}
	}
	for _, cid := range opts.Guests {
		if err := h.waitGuest(ctx, cid); err != nil {
			return err
		}
	}
	return nil
}

// Boot starts one more guest and returns when its services have been started. A
// CID can be used once.
func (h *Host) Boot(ctx context.Context, cid uint32) error {
	if err := h.startGuest(ctx, cid); err != nil {
		return err
	}
	return h.waitGuest(ctx, cid)
}

// Halt ends a guest as a VMM does that is killed.
func (h *Host) Halt(ctx context.Context, cid uint32) error {
	if _, err := h.Sh(ctx, fmt.Sprintf("kill -9 $(cat /run/guest-%d.pid)", cid)); err != nil {
		return err
	}
	_, err := h.WaitLine(ctx, fmt.Sprintf("^guest %d has ended$", cid))
	return err
}

func (h *Host) startGuest(ctx context.Context, cid uint32) error {
	args := machineArgs("kvm", hardware{cid: cid, memory: 160, cpus: 1}, guestKernel, guestInitramfs)
	_, err := h.Spawn(ctx, fmt.Sprintf("boot-guest %d '%s'", cid, strings.Join(args, "' '")))
	return err
}

func (h *Host) waitGuest(ctx context.Context, cid uint32) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	line, err := h.WaitLine(ctx, fmt.Sprintf("^guest %d(: init: up| has ended)$", cid))
	if err != nil {
		return fmt.Errorf("boot guest %d: %w", cid, err)
	}
	if line[1] == " has ended" {
		return fmt.Errorf("boot guest %d: its QEMU has ended; the last lines:\n%s", cid, h.console.tail())
	}
	return nil
}

// qemuFiles are QEMU, its libraries and firmware: their paths in a guest and
// here.
func qemuFiles(ctx context.Context, p Parts) (map[string]string, error) {
	files := map[string]string{"usr/bin/qemu-system-x86_64": p.QEMU}
	libraries, err := toolset.Libraries(ctx, p.QEMU)
	if err != nil {
		return nil, err
	}
	for _, l := range libraries {
		files[l] = l
	}
	dirs, err := toolset.Output(ctx, "/", p.QEMU, "-L", "help")
	if err != nil {
		return nil, fmt.Errorf("list QEMU's data directories: %w", err)
	}
	for _, name := range []string{"bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"} {
		path := find(strings.Fields(dirs), name)
		if path == "" {
			return nil, fmt.Errorf("QEMU's firmware %s is in none of %q", name, strings.Fields(dirs))
		}
		files["usr/share/qemu/"+name] = path
	}
	return files, nil
}

// find returns the file of that name in the first directory that has it, or an
// empty string.
func find(dirs []string, name string) string {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path
		}
	}
	return ""
}
