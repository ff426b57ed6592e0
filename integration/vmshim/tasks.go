package vmshim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"
)

// tasks is the Task service: the runc shim's, by embedding, where a VM has
// nothing to do with a call, and that with the agent's part before it otherwise.
//
// The agent's errors matter where Kata's do: while containers are made and
// started. Later ones are logged.
type tasks struct {
	task.TTRPCTaskService
	life     context.Context // ends with the runc shim
	settings Settings

	booting sync.Mutex // while a VM boots or ends

	mu         sync.Mutex
	tracing    *tracing // from the first Create to the last Shutdown
	sandbox    *sandbox // from the first Create to its Delete
	containers int
}

func newTasks(life context.Context, settings Settings, runc task.TTRPCTaskService) *tasks {
	return &tasks{TTRPCTaskService: runc, life: life, settings: settings}
}

// Create boots the VM if it is the first.
func (t *tasks) Create(ctx context.Context, r *task.CreateTaskRequest) (*task.CreateTaskResponse, error) {
	spec, err := readSpec(r.Bundle)
	if err != nil {
		return nil, err
	}
	if err := t.startTracing(); err != nil {
		return nil, err
	}
	vm, end := t.call("create") // as it is called there
	defer end()
	sb, err := t.boot(vm, r.ID, spec)
	if err != nil {
		return nil, fmt.Errorf("boot the VM of sandbox %s: %w", r.ID, err)
	}
	hasStreams := r.Stdin != "" || r.Stdout != "" || r.Stderr != ""
	if err := sb.createContainer(vm, r.ID, spec, hasStreams); err != nil {
		t.endIf(vm, sb, r.ID)
		return nil, fmt.Errorf("create container %s in the VM: %w", r.ID, err)
	}
	resp, err := t.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		logged("remove", r.ID, sb.removeContainer(vm, r.ID))
		t.endIf(vm, sb, r.ID)
		return nil, err
	}
	t.count(1)
	return resp, nil
}

func (t *tasks) Start(ctx context.Context, r *task.StartRequest) (*task.StartResponse, error) {
	vm, end := t.call("Start")
	defer end()
	sb := t.current()
	if sb == nil {
		return t.TTRPCTaskService.Start(ctx, r)
	}
	if err := sb.start(vm, r.ID, r.ExecID); err != nil {
		return nil, fmt.Errorf("start %s%s in the VM: %w", r.ID, r.ExecID, err)
	}
	if r.ID == sb.id && r.ExecID == "" && t.settings.Jaeger != "" {
		sb.background.Go(func() { scanNetwork(vm, sb.life.Done()) })
	}
	resp, err := t.TTRPCTaskService.Start(ctx, r)
	exited := func(ctx context.Context) (uint32, error) {
		if err != nil {
			return 255, nil
		}
		resp, err := t.TTRPCTaskService.Wait(ctx, &task.WaitRequest{ID: r.ID, ExecID: r.ExecID})
		return resp.GetExitStatus(), err
	}
	sb.follow(vm, r.ID, r.ExecID, exited)
	return resp, err
}

// Exec only notes the process, as Kata does: the agent hears of it at Start.
func (t *tasks) Exec(ctx context.Context, r *task.ExecProcessRequest) (*emptypb.Empty, error) {
	_, end := t.call("Exec")
	defer end()
	if sb := t.current(); sb != nil {
		var process specs.Process
		if err := json.Unmarshal(r.Spec.GetValue(), &process); err != nil {
			return nil, fmt.Errorf("exec %s in %s: its process: %w", r.ExecID, r.ID, err)
		}
		sb.noteExec(r.ID, r.ExecID, &process, r.Stdin != "" || r.Stdout != "" || r.Stderr != "")
	}
	return t.TTRPCTaskService.Exec(ctx, r)
}

// Delete of the sandbox's own container ends the VM.
func (t *tasks) Delete(ctx context.Context, r *task.DeleteRequest) (*task.DeleteResponse, error) {
	vm, end := t.call("Delete")
	defer end()
	resp, err := t.TTRPCTaskService.Delete(ctx, r)
	if err != nil || r.ExecID != "" {
		return resp, err
	}
	t.count(-1)
	if sb := t.current(); sb != nil {
		logged("remove", r.ID, sb.removeContainer(vm, r.ID))
		t.endIf(vm, sb, r.ID)
	}
	return resp, nil
}

func (t *tasks) Kill(ctx context.Context, r *task.KillRequest) (*emptypb.Empty, error) {
	vm, end := t.call("Kill")
	defer end()
	if sb := t.current(); sb != nil {
		logged("signal", r.ID, sb.signal(vm, r.ID, r.ExecID, r.Signal))
	}
	return t.TTRPCTaskService.Kill(ctx, r)
}

func (t *tasks) Stats(ctx context.Context, r *task.StatsRequest) (*task.StatsResponse, error) {
	vm, end := t.call("Stats")
	defer end()
	if sb := t.current(); sb != nil {
		logged("stats of", r.ID, sb.stats(vm, r.ID))
	}
	return t.TTRPCTaskService.Stats(ctx, r)
}

func (t *tasks) Update(ctx context.Context, r *task.UpdateTaskRequest) (*emptypb.Empty, error) {
	vm, end := t.call("Update")
	defer end()
	if sb := t.current(); sb != nil {
		logged("update", r.ID, sb.update(vm, r.ID, r.Resources.GetValue()))
	}
	return t.TTRPCTaskService.Update(ctx, r)
}

func (t *tasks) Pause(ctx context.Context, r *task.PauseRequest) (*emptypb.Empty, error) {
	vm, end := t.call("Pause")
	defer end()
	if sb := t.current(); sb != nil {
		logged("pause", r.ID, sb.pause(vm, r.ID))
	}
	return t.TTRPCTaskService.Pause(ctx, r)
}

func (t *tasks) Resume(ctx context.Context, r *task.ResumeRequest) (*emptypb.Empty, error) {
	vm, end := t.call("Resume")
	defer end()
	if sb := t.current(); sb != nil {
		logged("resume", r.ID, sb.resume(vm, r.ID))
	}
	return t.TTRPCTaskService.Resume(ctx, r)
}

func (t *tasks) ResizePty(ctx context.Context, r *task.ResizePtyRequest) (*emptypb.Empty, error) {
	vm, end := t.call("ResizePty")
	defer end()
	if sb := t.current(); sb != nil {
		logged("resize", r.ID, sb.resize(vm, r.ID, r.ExecID, r.Height, r.Width))
	}
	return t.TTRPCTaskService.ResizePty(ctx, r)
}

func (t *tasks) CloseIO(ctx context.Context, r *task.CloseIORequest) (*emptypb.Empty, error) {
	vm, end := t.call("CloseIO")
	defer end()
	if sb := t.current(); sb != nil && r.Stdin {
		logged("close stdin of", r.ID, sb.closeStdin(vm, r.ID, r.ExecID))
	}
	return t.TTRPCTaskService.CloseIO(ctx, r)
}

func (t *tasks) State(ctx context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	_, end := t.call("State")
	defer end()
	return t.TTRPCTaskService.State(ctx, r)
}

func (t *tasks) Pids(ctx context.Context, r *task.PidsRequest) (*task.PidsResponse, error) {
	_, end := t.call("Pids")
	defer end()
	return t.TTRPCTaskService.Pids(ctx, r)
}

func (t *tasks) Connect(ctx context.Context, r *task.ConnectRequest) (*task.ConnectResponse, error) {
	_, end := t.call("Connect")
	defer end()
	return t.TTRPCTaskService.Connect(ctx, r)
}

func (t *tasks) Wait(ctx context.Context, r *task.WaitRequest) (*task.WaitResponse, error) {
	_, end := t.call("Wait")
	defer end()
	return t.TTRPCTaskService.Wait(ctx, r)
}

// Shutdown with no container left ends the trace, before it ends the runc shim. That
// may be before it has answered: an end of the connection to containerd, and as good
// as an answer.
func (t *tasks) Shutdown(ctx context.Context, r *task.ShutdownRequest) (*emptypb.Empty, error) {
	_, end := t.call("Shutdown")
	end()
	if t.count(0) == 0 {
		t.endTracing()
	}
	resp, err := t.TTRPCTaskService.Shutdown(ctx, r)
	if errors.Is(err, ttrpc.ErrClosed) {
		return &emptypb.Empty{}, nil
	}
	return resp, err
}

func readSpec(bundle string) (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("bundle %s: config.json: %w", bundle, err)
	}
	return &spec, nil
}

func logged(what, id string, err error) {
	if err != nil {
		log.Printf("vmshim: %s %s in the VM: %v", what, id, err)
	}
}
