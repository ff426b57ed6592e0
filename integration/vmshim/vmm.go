package vmshim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// vmmCommand is the argument by which this program is executed as a VMM. The VMM's kernel
// parameters follow, for others to see: it does nothing with them.
const vmmCommand = "vmshim-vmm"

// A vmmVM is a VMM that is a process of its own, and the agent below it.
type vmmVM struct {
	socket string
	cmd    *exec.Cmd
	ended  chan struct{}
}

// bootVMM executes the VMM, and waits for its socket, as Kata does.
func bootVMM(settings Settings, sandbox string) (vm, error) {
	v := &vmmVM{socket: settings.socket(sandbox), ended: make(chan struct{})}
	if err := os.MkdirAll(filepath.Dir(v.socket), 0o750); err != nil {
		return nil, err
	}
	v.cmd = exec.Command(settings.VMM, vmmCommand, sandbox, "--cmdline", "console=hvc0 "+settings.Cmdline)
	v.cmd.Stderr = os.Stderr
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = v.cmd.Wait()
		close(v.ended)
	}()
	for deadline := time.Now().Add(dialTimeout * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := os.Stat(v.socket)
		if err == nil {
			return v, nil
		}
		select {
		case <-v.ended:
			err = fmt.Errorf("the VMM ended: %s: %w", v.cmd.ProcessState, err)
		default:
			if time.Now().Before(deadline) {
				continue
			}
		}
		v.kill()
		return nil, err
	}
}

func (v *vmmVM) agentURL() string { return fmt.Sprintf("hvsock://%s:%d", v.socket, agentPort) }

func (v *vmmVM) kill() { _ = v.cmd.Process.Kill() }

func (v *vmmVM) wait() error {
	var late error
	select {
	case <-v.ended:
	case <-time.After(2 * endTimeout):
		v.kill()
		<-v.ended
		late = fmt.Errorf("the VMM had not ended after %s", 2*endTimeout)
	}
	_ = os.RemoveAll(filepath.Dir(v.socket)) // what one that was killed has left
	return late
}

// runVMM is the VMM: it takes its time, and has the guest until that ends.
func runVMM(settings Settings, sandbox string) error {
	time.Sleep(settings.VMMStart)
	v, err := bootProcess(settings, sandbox)
	if err != nil {
		return err
	}
	<-v.ended
	return v.remove()
}
