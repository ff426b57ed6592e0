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

	mu      sync.Mutex
	sandbox *sandbox // nil until the first Create, and after its Delete
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
	sb, err := t.boot(r.ID, spec)
	if err != nil {
		return nil, fmt.Errorf("boot the VM of sandbox %s: %w", r.ID, err)
	}
	hasStreams := r.Stdin != "" || r.Stdout != "" || r.Stderr != ""
	if err := sb.createContainer(r.ID, spec, hasStreams); err != nil {
		t.endIf(sb, r.ID)
		return nil, fmt.Errorf("create container %s in the VM: %w", r.ID, err)
	}
	resp, err := t.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		logged("remove", r.ID, sb.removeContainer(r.ID))
		t.endIf(sb, r.ID)
	}
	return resp, err
}

func (t *tasks) Start(ctx context.Context, r *task.StartRequest) (*task.StartResponse, error) {
	sb := t.current()
	if sb == nil {
		return t.TTRPCTaskService.Start(ctx, r)
	}
	if err := sb.start(r.ID, r.ExecID); err != nil {
		return nil, fmt.Errorf("start %s%s in the VM: %w", r.ID, r.ExecID, err)
	}
	resp, err := t.TTRPCTaskService.Start(ctx, r)
	exited := func(ctx context.Context) (uint32, error) {
		if err != nil {
			return 255, nil
		}
		resp, err := t.Wait(ctx, &task.WaitRequest{ID: r.ID, ExecID: r.ExecID})
		return resp.GetExitStatus(), err
	}
	sb.follow(r.ID, r.ExecID, exited)
	return resp, err
}

// Exec only notes the process, as Kata does: the agent hears of it at Start.
func (t *tasks) Exec(ctx context.Context, r *task.ExecProcessRequest) (*emptypb.Empty, error) {
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
	resp, err := t.TTRPCTaskService.Delete(ctx, r)
	if sb := t.current(); err == nil && sb != nil && r.ExecID == "" {
		logged("remove", r.ID, sb.removeContainer(r.ID))
		t.endIf(sb, r.ID)
	}
	return resp, err
}

func (t *tasks) Kill(ctx context.Context, r *task.KillRequest) (*emptypb.Empty, error) {
	if sb := t.current(); sb != nil {
		logged("signal", r.ID, sb.signal(r.ID, r.ExecID, r.Signal))
	}
	return t.TTRPCTaskService.Kill(ctx, r)
}

func (t *tasks) Stats(ctx context.Context, r *task.StatsRequest) (*task.StatsResponse, error) {
	if sb := t.current(); sb != nil {
		logged("stats of", r.ID, sb.stats(r.ID))
	}
	return t.TTRPCTaskService.Stats(ctx, r)
}

func (t *tasks) Update(ctx context.Context, r *task.UpdateTaskRequest) (*emptypb.Empty, error) {
	if sb := t.current(); sb != nil {
		logged("update", r.ID, sb.update(r.ID, r.Resources.GetValue()))
	}
	return t.TTRPCTaskService.Update(ctx, r)
}

func (t *tasks) Pause(ctx context.Context, r *task.PauseRequest) (*emptypb.Empty, error) {
	if sb := t.current(); sb != nil {
		logged("pause", r.ID, sb.pause(r.ID))
	}
	return t.TTRPCTaskService.Pause(ctx, r)
}

func (t *tasks) Resume(ctx context.Context, r *task.ResumeRequest) (*emptypb.Empty, error) {
	if sb := t.current(); sb != nil {
		logged("resume", r.ID, sb.resume(r.ID))
	}
	return t.TTRPCTaskService.Resume(ctx, r)
}

func (t *tasks) ResizePty(ctx context.Context, r *task.ResizePtyRequest) (*emptypb.Empty, error) {
	if sb := t.current(); sb != nil {
		logged("resize", r.ID, sb.resize(r.ID, r.ExecID, r.Height, r.Width))
	}
	return t.TTRPCTaskService.ResizePty(ctx, r)
}

func (t *tasks) CloseIO(ctx context.Context, r *task.CloseIORequest) (*emptypb.Empty, error) {
	if sb := t.current(); sb != nil && r.Stdin {
		logged("close stdin of", r.ID, sb.closeStdin(r.ID, r.ExecID))
	}
	return t.TTRPCTaskService.CloseIO(ctx, r)
}

// Shutdown may end the runc shim before it has answered. That is an end of the
// connection to containerd, and as good as an answer.
func (t *tasks) Shutdown(ctx context.Context, r *task.ShutdownRequest) (*emptypb.Empty, error) {
	resp, err := t.TTRPCTaskService.Shutdown(ctx, r)
	if errors.Is(err, ttrpc.ErrClosed) {
		return &emptypb.Empty{}, nil
	}
	return resp, err
}

func (t *tasks) current() *sandbox {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sandbox
}

// boot returns the sandbox, which the first container's id names.
func (t *tasks) boot(id string, spec *specs.Spec) (*sandbox, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sandbox != nil {
		return t.sandbox, nil
	}
	sb, err := bootSandbox(t.life, t.settings, id, spec)
	t.sandbox = sb
	return sb, err
}

// endIf ends the sandbox if it is the one of that id.
func (t *tasks) endIf(sb *sandbox, id string) {
	if sb.id == id {
		t.end()
	}
}

// end ends the sandbox, if there is one.
func (t *tasks) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sandbox != nil {
		logged("end", t.sandbox.id, t.sandbox.end())
		t.sandbox = nil
	}
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
