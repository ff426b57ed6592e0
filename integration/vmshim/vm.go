package vmshim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A vm is a booted VM. Its agent may not yet listen.
type vm interface {
	// agentURL is where Kata's client finds the agent.
	agentURL() string
	// kill ends the VM at once.
	kill()
	// wait returns when the VM has ended by itself, which the agent does after
	// it has sent its spans, and nothing of it is left. It ends the VM when that
	// takes too long.
	wait() error
}

func bootVM(settings Settings, sandbox string) (vm, error) {
	if settings.External {
		time.Sleep(settings.Boot)
		return externalVM(settings.socket(sandbox)), nil
	}
	if settings.VMM != "" {
		return bootVMM(settings, sandbox)
	}
	return bootProcess(settings, sandbox)
}

// An externalVM is run by somebody else; the value is where its agent is.
type externalVM string

func (v externalVM) agentURL() string {
	if strings.HasPrefix(string(v), "vsock://") {
		return string(v)
	}
	return fmt.Sprintf("hvsock://%s:%d", string(v), agentPort)
}

func (externalVM) kill()       {}
func (externalVM) wait() error { return nil }

// A processVM is the agent as a local process behind a hybrid socket.
type processVM struct {
	socket string
	dir    string // what only guest and VMM see
	hybrid *hybrid
	agent  *exec.Cmd
	ended  chan struct{}
}

// endTimeout is how long the agent may take to send its spans and end, as long as
// Kata gives a VM.
const endTimeout = 10 * time.Second

// bootProcess does as Kata with Cloud Hypervisor: the directory appears, the
// VMM's socket in it, and some time later the agent.
func bootProcess(settings Settings, sandbox string) (_ *processVM, err error) {
	v := &processVM{socket: settings.socket(sandbox), ended: make(chan struct{})}
	defer func() {
		if err != nil {
			v.remove()
		}
	}()
	if err := os.MkdirAll(filepath.Dir(v.socket), 0o750); err != nil {
		return nil, err
	}
	if v.dir, err = os.MkdirTemp("", "vmshim-"); err != nil {
		return nil, err
	}
	agentSocket := filepath.Join(v.dir, "agent.sock")
	listener, err := net.Listen("unix", v.socket)
	if err != nil {
		return nil, err
	}
	v.hybrid = serveHybrid(listener, map[uint32]string{agentPort: agentSocket})
	time.Sleep(settings.Boot)

	v.agent = exec.Command(settings.Agent, append([]string{
		"--listen", "unix://" + agentSocket,
		"--export", fmt.Sprintf("unix://%s_%d", v.socket, spanPort),
	}, settings.AgentFlags...)...)
	v.agent.Stderr = os.Stderr
	v.agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The kernel takes the end of the thread that started it for its parent's.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := v.agent.Start()
		started <- err
		if err == nil {
			v.agent.Wait()
			close(v.ended)
		}
	}()
	return v, <-started
}

func (v *processVM) agentURL() string { return fmt.Sprintf("hvsock://%s:%d", v.socket, agentPort) }

func (v *processVM) kill() { v.agent.Process.Kill() }

func (v *processVM) wait() error {
	var late error
	select {
	case <-v.ended:
	case <-time.After(endTimeout):
		v.kill()
		<-v.ended
		late = fmt.Errorf("the agent had not ended after %s", endTimeout)
	}
	return errors.Join(late, v.remove())
}

// remove removes the VMM's socket and both directories.
func (v *processVM) remove() error {
	if v.hybrid != nil {
		v.hybrid.close()
	}
	err := os.RemoveAll(filepath.Dir(v.socket))
	if v.dir != "" {
		err = errors.Join(err, os.RemoveAll(v.dir))
	}
	return err
}
