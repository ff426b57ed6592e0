package vmshim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols"
	"github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/client"
	agent "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"go.opentelemetry.io/otel/attribute"
)

// A sandbox is a VM with its agent, as Kata's Go runtime holds it: one connection
// to the agent for as long as the VM lives. Each method sends the agent what the
// runtime sends it for a call of the shim.
type sandbox struct {
	id     string
	kill   bool
	policy bool
	output int // bytes that processes write, 0 if that is not known
	// backoff is how long it sleeps after an attempt to reach the agent that failed.
	backoff time.Duration
	vm      vm
	client  *client.AgentClient
	life    context.Context // has the root span, and ends with the connection to the agent
	stop    context.CancelFunc
	ending  atomic.Bool
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

// bootSandbox boots a VM and makes the sandbox in it, for the call of ctx.
func bootSandbox(ctx, life context.Context, settings Settings, id string, spec *specs.Spec) (*sandbox, error) {
	sb := &sandbox{id: id, kill: settings.Kill, policy: settings.Policy, output: settings.Output, backoff: settings.DialBackoff, processes: map[processID]*process{}}
	sb.life, sb.stop = context.WithCancel(life)
	named := attribute.String("sandbox_id", id)
	// The first span that is over, and it says whose the trace is.
	_, end := begin(ctx, "createAssets", ofSandbox, named)
	end()
	ctx, end = begin(ctx, "startVM", ofSandbox, named)
	defer end()
	var err error
	if sb.vm, err = bootVM(settings, id); err != nil {
		sb.stop()
		return nil, err
	}
	if err := sb.connect(ctx, spec); err != nil {
		sb.vm.kill()
		return nil, errors.Join(err, sb.end(ctx))
	}
	return sb, nil
}

// connect does what comes before the first container.
func (sb *sandbox) connect(ctx context.Context, spec *specs.Spec) (err error) {
	if sb.backoff > 0 {
		if err := awaitAgent(sb.vm.agentURL(), sb.backoff); err != nil {
			return err
		}
	}
	sb.client, err = client.NewAgentClient(sb.life, sb.vm.agentURL(), dialTimeout)
	if err != nil {
		return fmt.Errorf("connect to the agent at %s: %w", sb.vm.agentURL(), err)
	}
	ctx, cancel := limited(ctx)
	defer cancel()
	if _, err := sb.client.HealthClient.Check(ctx, &agent.CheckRequest{}); err != nil {
		return fmt.Errorf("check the agent: %w", err)
	}
	if sb.policy {
		if _, err := sb.agent().SetPolicy(ctx, &agent.SetPolicyRequest{Policy: "package agent_policy\n\ndefault AllowRequestsFailingPolicy := true\n"}); err != nil {
			return fmt.Errorf("set the policy: %w", err)
		}
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
			if _, err := sb.agent().GetOOMEvent(sb.life, &agent.GetOOMEventRequest{}); err != nil {
				if !sb.ending.Load() {
					sb.vm.kill() // as Kata: what cannot be reached is not kept
				}
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
func (sb *sandbox) end(ctx context.Context) error {
	sb.ending.Store(true)
	var errs []error
	switch {
	case sb.client == nil: // it never came up
	case sb.kill:
		sb.vm.kill()
	default:
		ctx, cancel := limited(ctx)
		_, err := sb.agent().DestroySandbox(ctx, &agent.DestroySandboxRequest{})
		cancel()
		// The agent ends with its answer, and the client can see that end first.
		if err != nil && !errors.Is(err, ttrpc.ErrClosed) {
			errs = append(errs, fmt.Errorf("destroy the sandbox: %w", err))
			sb.vm.kill()
		}
	}
	errs = append(errs, sb.vm.wait())
	if sb.client != nil {
		sb.client.Close()
	}
	sb.stop()
	sb.background.Wait()
	return errors.Join(errs...)
}

// limited lets a request to the agent take no longer than Kata does.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

func (sb *sandbox) createContainer(ctx context.Context, id string, spec *specs.Spec, hasStreams bool) error {
	oci, err := agent.OCItoGRPC(spec)
	if err != nil {
		return err
	}
	sb.note(processID{id, ""}, &process{hasStreams: hasStreams})
	ctx, end := begin(ctx, "createContainer", ofAgent)
	defer end()
	ctx, cancel := limited(ctx)
	defer cancel()
	// The Go runtime repeats the container's id as the exec id of its process.
	_, err = sb.agent().CreateContainer(ctx, &agent.CreateContainerRequest{ContainerId: id, ExecId: id, OCI: oci})
	return err
}

func (sb *sandbox) noteExec(id, exec string, spec *specs.Process, hasStreams bool) {
	sb.note(processID{id, exec}, &process{spec: spec, hasStreams: hasStreams})
}

// start starts a container, or runs the process that was noted for the exec id.
func (sb *sandbox) start(ctx context.Context, id, exec string) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	if exec == "" {
		ctx, end := begin(ctx, "startContainer", ofAgent)
		defer end()
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
	ctx, end := begin(ctx, "exec", ofAgent)
	defer end()
	_, err = sb.agent().ExecProcess(ctx, &agent.ExecProcessRequest{ContainerId: id, ExecId: exec, Process: spec})
	return err
}

// removeContainer returns after its processes' ends have been told: until then
// the agent must know them.
func (sb *sandbox) removeContainer(ctx context.Context, id string) error {
	ctx, cancel := limited(ctx)
	defer cancel()
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

func (sb *sandbox) signal(ctx context.Context, id, exec string, signal uint32) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	_, err := sb.agent().SignalProcess(ctx, &agent.SignalProcessRequest{ContainerId: id, ExecId: exec, Signal: signal})
	return err
}

func (sb *sandbox) stats(ctx context.Context, id string) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	_, err := sb.agent().StatsContainer(ctx, &agent.StatsContainerRequest{ContainerId: id})
	return err
}

func (sb *sandbox) update(ctx context.Context, id string, resources []byte) error {
	ctx, cancel := limited(ctx)
	defer cancel()
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

func (sb *sandbox) pause(ctx context.Context, id string) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	_, err := sb.agent().PauseContainer(ctx, &agent.PauseContainerRequest{ContainerId: id})
	return err
}

func (sb *sandbox) resume(ctx context.Context, id string) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	_, err := sb.agent().ResumeContainer(ctx, &agent.ResumeContainerRequest{ContainerId: id})
	return err
}

func (sb *sandbox) resize(ctx context.Context, id, exec string, height, width uint32) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	_, err := sb.agent().TtyWinResize(ctx, &agent.TtyWinResizeRequest{ContainerId: id, ExecId: execID(id, exec), Row: height, Column: width})
	return err
}

func (sb *sandbox) closeStdin(ctx context.Context, id, exec string) error {
	ctx, cancel := limited(ctx)
	defer cancel()
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
