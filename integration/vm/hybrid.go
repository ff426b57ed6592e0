package vm

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// hybridCID is the guest's own CID. Nothing on this machine sees it.
const hybridCID = 3

// HybridOptions are what a hybrid guest is made of.
type HybridOptions struct {
	// Socket is the path of the Unix socket that is the host's side of the
	// guest's VSOCK; its directory must exist and is left as it is, but for the
	// socket. Not longer than 100 bytes.
	Socket string
	// Files are files for the guest: their paths there, their paths here. All
	// are executable. /bin has busybox's programs.
	Files map[string]string
	// Services are shell commands that run from boot. They print to the console.
	Services []string
	// Modules are further kernel modules, by name.
	Modules []string
	// Kernel is further arguments of the guest's kernel.
	Kernel string
	// MemoryMB and CPUs of the guest are 256 and 1 unless set.
	MemoryMB, CPUs int
	// Log gets the console's lines, if not nil.
	Log io.Writer
}

// Hybrid boots a guest whose VSOCK is a Unix socket, and returns when its
// services have been started. Close ends it.
func Hybrid(ctx context.Context, opts HybridOptions) (*Guest, error) {
	p, err := findParts()
	if err != nil {
		return nil, err
	}
	g, err := newGuest(opts.Log)
	if err != nil {
		return nil, err
	}
	if err := g.bootHybrid(ctx, p, opts); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (g *Guest) bootHybrid(ctx context.Context, p Parts, opts HybridOptions) error {
	device := filepath.Join(g.dir, "vhost.sock")
	cmd := exec.Command(p.Vsock, fmt.Sprint("--guest-cid=", hybridCID), "--socket="+device, "--uds-path="+opts.Socket)
	cmd.Stdout, cmd.Stderr = g.console, g.console
	vsock, err := startChild(cmd)
	if err != nil {
		return err
	}
	g.helpers = append(g.helpers, vsock)
	for _, socket := range []string{device, opts.Socket} {
		if err := vsock.waitSocket(ctx, socket); err != nil {
			return fmt.Errorf("%w\n%s", err, g.console.tail())
		}
	}
	memory := or(opts.MemoryMB, 256)
	im := image{modules: slices.Concat(guestModules, opts.Modules), files: opts.Files, services: opts.Services}
	return g.boot(ctx, p, im, hardware{
		cid:     hybridCID,
		kernel:  opts.Kernel,
		machine: ",memory-backend=memory",
		memory:  memory,
		cpus:    or(opts.CPUs, 1),
		// The device's process reads and writes the guest's memory. It is to signal every buffer.
		args: []string{"-object", fmt.Sprintf("memory-backend-memfd,id=memory,size=%dM,share=on", memory),
			"-chardev", "socket,id=vsock,path=" + device, "-device", "vhost-user-vsock-pci,chardev=vsock,event_idx=off"},
	})
}

// waitSocket waits until the child has made the socket.
func (c *child) waitSocket(ctx context.Context, path string) error {
	name := filepath.Base(c.cmd.Path)
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s did not make %s: it ended: %s", name, path, c.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%s did not make %s: %w", name, path, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func or(n, fallback int) int {
	if n != 0 {
		return n
	}
	return fallback
}
