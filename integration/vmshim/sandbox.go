package vmshim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols"
	"github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/client"
	agent "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"go.opentelemetry.io/otel/trace"
)

// A sandbox is a VM with its agent, as Kata's Go runtime holds it: one connection
// to the agent for as long as the VM lives. Each method sends the agent what the
// runtime sends it for a call of the shim.
type sandbox struct {
	id     string
	kill   bool
	vm     vm
	client *client.AgentClient
	ctx    context.Context // has the root span
	root   trace.Span
	// background is what goes on beside the calls: following processes, waiting
	// for the OOM killer. It ends with the agent's connection.
	background sync.WaitGroup

	mu        sync.Mutex
	processes map[processID]*process
}

// A processID names a process as the shim's calls do: its first process has no
// exec id.
type processID struct{ container, exec string }

type process struct {
	spec       *specs.Process
	hasStreams bool
	waited     chan struct{} // closed when the agent has told its end; nil until it starts
}

const (
	dialTimeout = 60 // seconds; a VM under emulation takes half of it
	callTimeout = time.Minute
)

// bootSandbox boots a VM and makes the sandbox in it.
func bootSandbox(life context.Context, settings Settings, id string, spec *specs.Spec) (*sandbox, error) {
	vm, err := bootVM(settings, id)
	if err != nil {
		return nil, err
	}
	sb := &sandbox{id: id, kill: settings.Kill, vm: vm, processes: map[processID]*process{}}
	sb.ctx, sb.root = startTracing(life, settings.Tracing)
	if err := sb.connect(spec); err != nil {
		vm.kill()
		return nil, errors.Join(err, sb.end())
	}
	return sb, nil
}

// connect does what comes before the first container.
func (sb *sandbox) connect(spec *specs.Spec) (err error) {
	sb.client, err = client.NewAgentClient(sb.ctx, sb.vm.agentURL(), dialTimeout)
	if err != nil {
		return fmt.Errorf("connect to the agent at %s: %w", sb.vm.agentURL(), err)
	}
	ctx, end := sb.span("startVM")
	defer end()
	if _, err := sb.client.HealthClient.Check(ctx, &agent.CheckRequest{}); err != nil {
		return fmt.Errorf("check the agent: %w", err)
	}
	if hasNetwork(spec) {
		if err := sb.setUpNetwork(ctx); err != nil {
			return err
		}
	}
	if _, err := sb.agent().CreateSandbox(ctx, &agent.CreateSandboxRequest{SandboxId: sb.id, Hostname: spec.Hostname}); err != nil {
		return fmt.Errorf("create the sandbox: %w", err)
	}
	if _, err := sb.agent().GetGuestDetails(ctx, &agent.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true}); err != nil {
		return fmt.Errorf("get the guest's details: %w", err)
	}
	sb.background.Go(func() {
		for {
			if _, err := sb.agent().GetOOMEvent(sb.ctx, &agent.GetOOMEventRequest{}); err != nil {
				return
			}
		}
	})
	return nil
}

// hasNetwork: the sandbox has a network namespace that somebody has set up.
func hasNetwork(spec *specs.Spec) bool {
	if spec.Linux != nil {
		for _, ns := range spec.Linux.Namespaces {
			if ns.Type == specs.NetworkNamespace && ns.Path != "" {
				return true
			}
		}
	}
	return false
}

func (sb *sandbox) setUpNetwork(ctx context.Context) error {
	eth0 := &protocols.Interface{Name: "eth0", Device: "eth0", HwAddr: "02:00:00:00:00:01", Mtu: 1500}
	if _, err := sb.agent().UpdateInterface(ctx, &agent.UpdateInterfaceRequest{Interface: eth0}); err != nil {
		return fmt.Errorf("update the interface: %w", err)
	}
	routes := &agent.Routes{Routes: []*protocols.Route{{Dest: "", Gateway: "10.78.0.1", Device: "eth0"}}}
	if _, err := sb.agent().UpdateRoutes(ctx, &agent.UpdateRoutesRequest{Routes: routes}); err != nil {
		return fmt.Errorf("update the routes: %w", err)
	}
	return nil
}

func (sb *sandbox) agent() agent.AgentServiceService { return sb.client.AgentServiceClient }

// end destroys the sandbox and returns when the VM is gone.
func (sb *sandbox) end() error {
	var errs []error
	switch {
	case sb.client == nil: // it never came up
	case sb.kill:
		sb.vm.kill()
	default:
		ctx, end := sb.span("Shutdown")
		_, err := sb.agent().DestroySandbox(ctx, &agent.DestroySandboxRequest{})
		// The agent ends with its answer, and the client can see that end first.
		if err != nil && !errors.Is(err, ttrpc.ErrClosed) {
			errs = append(errs, fmt.Errorf("destroy the sandbox: %w", err))
			sb.vm.kill()
		}
		end()
	}
	errs = append(errs, sb.vm.wait())
	if sb.client != nil {
		sb.client.Close()
	}
	sb.background.Wait()
	sb.root.End()
	return errors.Join(errs...)
}

func (sb *sandbox) createContainer(id string, spec *specs.Spec, hasStreams bool) error {
	ctx, end := sb.span("create")
	defer end()
	oci, err := agent.OCItoGRPC(spec)
	if err != nil {
		return err
	}
	sb.note(processID{id, ""}, &process{hasStreams: hasStreams})
	// The Go runtime repeats the container's id as the exec id of its process.
	_, err = sb.agent().CreateContainer(ctx, &agent.CreateContainerRequest{ContainerId: id, ExecId: id, OCI: oci})
	return err
}

func (sb *sandbox) noteExec(id, exec string, spec *specs.Process, hasStreams bool) {
	sb.note(processID{id, exec}, &process{spec: spec, hasStreams: hasStreams})
}

// start starts a container, or runs the process that was noted for the exec id.
func (sb *sandbox) start(id, exec string) error {
	ctx, end := sb.span("Start")
	defer end()
	if exec == "" {
		_, err := sb.agent().StartContainer(ctx, &agent.StartContainerRequest{ContainerId: id})
		return err
	}
	p := sb.find(processID{id, exec})
	if p == nil {
		return fmt.Errorf("no exec %s", exec)
	}
	spec, err := agent.ProcessOCItoGRPC(p.spec)
	if err != nil {
		return err
	}
	_, err = sb.agent().ExecProcess(ctx, &agent.ExecProcessRequest{ContainerId: id, ExecId: exec, Process: spec})
	return err
}

// removeContainer returns after its processes' ends have been told: until then
// the agent must know them.
func (sb *sandbox) removeContainer(id string) error {
	ctx, end := sb.span("Delete")
	defer end()
	for _, waited := range sb.forget(id) {
		select {
		case <-waited:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if _, err := sb.agent().RemoveContainer(ctx, &agent.RemoveContainerRequest{ContainerId: id}); err != nil {
		return err
	}
	_, err := sb.agent().RemoveStaleVirtiofsShareMounts(ctx, &agent.RemoveStaleVirtiofsShareMountsRequest{})
	return err
}

func (sb *sandbox) signal(id, exec string, signal uint32) error {
	ctx, end := sb.span("Kill")
	defer end()
	_, err := sb.agent().SignalProcess(ctx, &agent.SignalProcessRequest{ContainerId: id, ExecId: exec, Signal: signal})
	return err
}

func (sb *sandbox) stats(id string) error {
	ctx, end := sb.span("Stats")
	defer end()
	_, err := sb.agent().StatsContainer(ctx, &agent.StatsContainerRequest{ContainerId: id})
	return err
}

func (sb *sandbox) update(id string, resources []byte) error {
	ctx, end := sb.span("Update")
	defer end()
	var oci specs.LinuxResources
	if err := json.Unmarshal(resources, &oci); err != nil {
		return err
	}
	changed, err := agent.ResourcesOCItoGRPC(&oci)
	if err != nil {
		return err
	}
	_, err = sb.agent().UpdateContainer(ctx, &agent.UpdateContainerRequest{ContainerId: id, Resources: changed})
	return err
}

func (sb *sandbox) pause(id string) error {
	ctx, end := sb.span("Pause")
	defer end()
	_, err := sb.agent().PauseContainer(ctx, &agent.PauseContainerRequest{ContainerId: id})
	return err
}

func (sb *sandbox) resume(id string) error {
	ctx, end := sb.span("Resume")
	defer end()
	_, err := sb.agent().ResumeContainer(ctx, &agent.ResumeContainerRequest{ContainerId: id})
	return err
}

func (sb *sandbox) resize(id, exec string, height, width uint32) error {
	ctx, end := sb.span("ResizePty")
	defer end()
	_, err := sb.agent().TtyWinResize(ctx, &agent.TtyWinResizeRequest{ContainerId: id, ExecId: execID(id, exec), Row: height, Column: width})
	return err
}

func (sb *sandbox) closeStdin(id, exec string) error {
	ctx, end := sb.span("CloseIO")
	defer end()
	_, err := sb.agent().CloseStdin(ctx, &agent.CloseStdinRequest{ContainerId: id, ExecId: execID(id, exec)})
	return err
}

// execID is how the Go runtime names a process to the agent.
func execID(id, exec string) string {
	if exec == "" {
		return id
	}
	return exec
}
