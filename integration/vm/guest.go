package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

// bootTimeout is a hundred times what an idle machine needs.
const bootTimeout = 4 * time.Minute

// EnvCID is set in the environment of everything in a guest: to its CID, and in a
// guest that is a host to what its guests call it, 2.
const EnvCID = "VM_CID"

// A Guest is a running emulated machine. Its methods may be called at once from
// several goroutines; commands run one after the other.
type Guest struct {
	dir     string // the guest's own, removed by Close
	qemu    *child
	helpers []*child
	console *console

	mu      sync.Mutex // held for one command and its answer
	control net.Conn
	answers *bufio.Reader
}

// hardware is what differs between guests' machines.
type hardware struct {
	cid     uint32
	machine string // further properties of the machine, with a leading comma
	memory  int    // MB
	cpus    int
	kernel  string // further arguments of the kernel
	args    []string
}

// newGuest makes a guest's directory. Close the guest after any error later on.
func newGuest(log io.Writer) (*Guest, error) {
	if log == nil {
		log = io.Discard
	}
	dir, err := tempdir.Make()
	if err != nil {
		return nil, fmt.Errorf("make the guest's directory: %w", err)
	}
	return &Guest{dir: dir, console: newConsole(log)}, nil
}

// boot starts the machine and waits until its services have been started.
func (g *Guest) boot(ctx context.Context, p Parts, im image, hw hardware) error {
	initrd := filepath.Join(g.dir, "initramfs")
	if err := im.write(initrd, p); err != nil {
		return err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return fmt.Errorf("make the guest's control port: %w", err)
	}
	defer theirs.Close()
	g.control, g.answers = ours, bufio.NewReader(ours)

	args := append(machineArgs("tcg", hw, p.Kernel, initrd),
		"-serial", "stdio", "-chardev", "socket,id=control,fd=3", "-serial", "chardev:control")
	cmd := exec.Command(p.QEMU, append(args, hw.args...)...)
	cmd.Stdout, cmd.Stderr = g.console, g.console
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.WaitDelay = time.Second
	if g.qemu, err = startChild(cmd); err != nil {
		return err
	}
	go func() {
		<-g.qemu.done
		g.console.end()
	}()
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	if _, err := g.WaitLine(ctx, "^init: up$"); err != nil {
		return fmt.Errorf("boot a guest: %w", err)
	}
	return nil
}

// machineArgs are QEMU's arguments for every machine, also for one inside
// another. q35 has a timer that survives a busy machine; microvm has not. The
// kernel would take it for broken, and panic, if it got no processor while it is
// checked. The kernel puts what it does not know of its arguments into init's
// environment.
func machineArgs(accel string, hw hardware, kernel, initrd string) []string {
	return []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", accel, "-machine", "q35" + hw.machine, "-cpu", "max",
		"-m", strconv.Itoa(hw.memory), "-smp", strconv.Itoa(hw.cpus),
		"-kernel", kernel, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable random.trust_cpu=on " + EnvCID + "=" + strconv.FormatUint(uint64(hw.cid), 10) + " " + hw.kernel}
}

// socketPair is a connection whose other end a child can inherit.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// WaitLine waits for a line on the console that matches the regular expression,
// among all lines since power-on, and returns the first such line's match and
// submatches. It ends early when the guest does.
func (g *Guest) WaitLine(ctx context.Context, pattern string) ([]string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("wait for a line: %w", err)
	}
	return g.console.wait(ctx, re)
}

// Lines are all lines on the console since power-on, up to 8 MB.
func (g *Guest) Lines() []string { return g.console.all() }

// Sh runs a shell command of one line in the guest and returns its output,
// standard error included. An exit code other than 0 is an error with that
// output. When ctx ends first, the command goes on and the guest takes no more.
func (g *Guest) Sh(ctx context.Context, command string) (string, error) {
	out, code, err := g.command(ctx, command)
	switch {
	case err != nil:
		return "", fmt.Errorf("run %q in the guest: %w; its last lines:\n%s", command, err, g.console.tail())
	case code != 0:
		return out, fmt.Errorf("run %q in the guest: exit code %d\n%s", command, code, out)
	}
	return out, nil
}

// Spawn starts a shell command of one line as a service and returns its process
// id in the guest. What it prints is on the console.
func (g *Guest) Spawn(ctx context.Context, command string) (pid int, err error) {
	out, err := g.Sh(ctx, "{ exec "+command+"; } </dev/null >/dev/console 2>&1 & echo $!")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

func (g *Guest) command(ctx context.Context, command string) (out string, code int, err error) {
	if strings.Contains(command, "\n") {
		return "", 0, errors.New("it has more than one line")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { g.control.Close() })
	defer func() {
		if !stop() && err != nil {
			err = context.Cause(ctx)
		}
	}()
	if _, err := io.WriteString(g.control, command+"\n"); err != nil {
		return "", 0, err
	}
	var size int
	if _, err := fmt.Fscanf(g.answers, "%d %d\n", &code, &size); err != nil {
		return "", 0, err
	}
	data := make([]byte, size)
	_, err = io.ReadFull(g.answers, data)
	return string(data), code, err
}

// Shutdown powers the guest off as its kernel does, so that its connections end
// as those of a machine that is switched off. Close is still needed.
func (g *Guest) Shutdown(ctx context.Context) error {
	if _, err := io.WriteString(g.control, "poweroff -f\n"); err != nil {
		return fmt.Errorf("shut the guest down: %w", err)
	}
	select {
	case <-g.qemu.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shut the guest down: %w; its last lines:\n%s", context.Cause(ctx), g.console.tail())
	}
}

// Close ends the guest at once, as a power cut does, and removes what is its
// own. It may be called more than once.
func (g *Guest) Close() error {
	if g.qemu != nil {
		g.qemu.kill()
	}
	for _, h := range g.helpers {
		h.kill()
	}
	if g.control != nil {
		g.control.Close()
	}
	return os.RemoveAll(g.dir)
}
