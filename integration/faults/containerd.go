package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/shimtrace/shimtrace/integration/rig"
)

// A containerd is a client of a rig's containerd, without a process for each call as
// ctr has. Its containers have one root, which has a busybox and the pattern.
type containerd struct {
	rig     *rig.Rig
	conn    *grpc.ClientConn
	tasks   tasks.TasksClient
	store   containers.ContainersClient
	runtime string // type
	root    string
	spec    map[string]any
}

// patternFile is in each container's root.
const patternFile = "/pattern"

// dial connects to a rig's containerd; containers are of that runtime's type.
func dial(r *rig.Rig, runtime string, pattern []byte) (*containerd, error) {
	conn, err := grpc.NewClient("unix://"+r.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	c := &containerd{rig: r, conn: conn, tasks: tasks.NewTasksClient(conn), store: containers.NewContainersClient(conn), runtime: runtime, root: filepath.Join(r.Dir, "root-of-load")}
	if err := c.makeRoot(pattern); err != nil {
		return nil, fmt.Errorf("make the containers' root: %w", err)
	}
	return c, nil
}

// named adds the rig's containerd namespace.
func (c *containerd) named(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", c.rig.Name)
}

func (c *containerd) makeRoot(pattern []byte) error {
	bin := filepath.Join(c.root, "bin")
	for _, dir := range []string{bin, filepath.Join(c.root, "proc"), filepath.Join(c.root, "dev"), filepath.Join(c.root, "sys")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), program, 0o755); err != nil {
		return err
	}
	for _, applet := range []string{"sh", "sleep", "cat", "true"} {
		if err := os.Symlink("busybox", filepath.Join(bin, applet)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(c.root, patternFile), pattern, 0o644); err != nil {
		return err
	}
	bundle, err := os.MkdirTemp(c.rig.Dir, "spec-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bundle)
	if out, err := c.rig.Command(context.Background(), "runc", "spec", "--bundle", bundle).CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &c.spec)
}

// process returns the process of a spec that runs these arguments.
func (c *containerd) process(args []string) map[string]any {
	p := map[string]any{}
	for k, v := range c.spec["process"].(map[string]any) {
		p[k] = v
	}
	p["terminal"], p["args"] = false, args
	return p
}

// object returns what containerd keeps of a container.
func (c *containerd) object(id string, args []string) (*containers.Container, error) {
	spec := map[string]any{}
	for k, v := range c.spec {
		spec[k] = v
	}
	linux := map[string]any{}
	for k, v := range c.spec["linux"].(map[string]any) {
		linux[k] = v
	}
	linux["cgroupsPath"] = "/" + c.rig.Name + "/" + id
	spec["process"], spec["linux"] = c.process(args), linux
	value, err := json.Marshal(spec)
	return &containers.Container{
		ID:      id,
		Runtime: &containers.Container_Runtime{Name: c.runtime},
		Spec:    &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: value},
	}, err
}

// mounts has the shim mount the common root.
func (c *containerd) mounts() []*types.Mount {
	return []*types.Mount{{Type: "bind", Source: c.root, Options: []string{"rbind", "ro"}}}
}

func execSpec(process map[string]any) (*anypb.Any, error) {
	value, err := json.Marshal(process)
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: value}, err
}
