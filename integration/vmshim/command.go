package vmshim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
)

// serveCommand is the argument by which start runs this program as a daemon.
const serveCommand = "vmshim-serve"

// Run is the shim's program, given its whole command line. All but start is the
// runc shim's own business: then Run does not return, unless with an error.
func Run(args []string) error {
	settings, err := settingsFromEnv()
	if err != nil {
		return err
	}
	if len(args) > 2 && args[1] == vmmCommand {
		return runVMM(settings, args[2])
	}
	runc, err := exec.LookPath(settings.RuncShim)
	if err != nil {
		return fmt.Errorf("find the runc shim: %w", err)
	}
	switch {
	case len(args) == 3 && args[1] == serveCommand:
		return serve(settings, args[2])
	case args[len(args)-1] == "start":
		return start(runc, args[1:])
	}
	err = syscall.Exec(runc, append([]string{runc}, args[1:]...), os.Environ())
	return fmt.Errorf("execute %s: %w", runc, err)
}

// start starts the runc shim, puts a daemon before it and answers with the
// daemon's address. Which containers share a shim is what runc's shim decides: a
// daemon that already stands before its address is used again.
func start(runc string, args []string) error {
	cmd := exec.Command(runc, args...)
	var stdout bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, &stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s start: %w", runc, err)
	}
	var answer bootstrap.BootstrapResult
	if err := proto.Unmarshal(stdout.Bytes(), &answer); err != nil {
		return fmt.Errorf("the answer of %s is not containerd 2.3's or later: %w", runc, err)
	}
	inner, isUnix := strings.CutPrefix(answer.Address, "unix://")
	if !isUnix {
		return fmt.Errorf("the runc shim's address %q is no Unix socket", answer.Address)
	}
	socket := daemonSocket(inner)
	if conn, err := net.Dial("unix", socket); err == nil {
		conn.Close()
	} else if err := startDaemon(socket, inner); err != nil {
		return err
	}
	answer.Address = "unix://" + socket
	out, err := proto.Marshal(&answer)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(out)
	return err
}

// daemonSocket is where the daemon before a runc shim listens.
func daemonSocket(inner string) string {
	return fmt.Sprintf("/run/vmshim/%.16x", sha256.Sum256([]byte(inner)))
}

// startDaemon starts a daemon that inherits its listening socket, so that
// containerd can connect at once.
func startDaemon(socket, inner string) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	if err != nil {
		return err
	}
	defer file.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, serveCommand, inner)
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// containerd waits for the end of stdout and stderr, so the daemon has
	// neither. It logs to containerd by the bundle's FIFO, opened for reading as
	// well: then there always is a reader.
	if log, err := os.OpenFile("log", os.O_RDWR|syscall.O_NONBLOCK, 0); err == nil {
		defer log.Close()
		cmd.Stderr = log
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	return cmd.Process.Release()
}
