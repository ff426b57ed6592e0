// Package cri is a client of CRI: what kubelet asks of containerd, as far as a test or
// a demonstration does, without crictl.
package cri

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A Client speaks with the CRI of one containerd.
type Client struct {
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
}

// New returns a client of the CRI at the Unix socket. It connects when it is used.
func New(socket string) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("client of CRI: %w", err)
	}
	return &Client{conn, runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Answers returns nil if CRI is there. It does not wait for it.
func (c *Client) Answers(ctx context.Context) error {
	_, err := c.runtime.Version(ctx, &runtimeapi.VersionRequest{})
	return err
}

// KnowsImage returns nil if CRI has the image.
func (c *Client) KnowsImage(ctx context.Context, name string) error {
	answer, err := c.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
	if err == nil && answer.Image == nil {
		err = fmt.Errorf("CRI does not know the image %s", name)
	}
	return err
}

// A Pod says what sandbox to run.
type Pod struct {
	Name    string
	Runtime string // the handler
	Logs    string // directory
	Cgroup  string // parent
	// Network gives it a network of its own, by CNI; else it has containerd's.
	Network bool
}

// A Sandbox is a pod that runs.
type Sandbox struct {
	ID string

	client *Client
	config *runtimeapi.PodSandboxConfig
}

// Run starts the sandbox of a pod.
func (c *Client) Run(ctx context.Context, pod Pod) (*Sandbox, error) {
	network := runtimeapi.NamespaceMode_NODE
	if pod.Network {
		network = runtimeapi.NamespaceMode_POD
	}
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: "default", Uid: pod.Name},
		LogDirectory: filepath.Join(pod.Logs, pod.Name),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: pod.Cgroup,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: network},
			},
		},
	}
	answer, err := c.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: pod.Runtime})
	if err != nil {
		return nil, fmt.Errorf("run pod %s: %w", pod.Name, err)
	}
	return &Sandbox{answer.PodSandboxId, c, config}, nil
}

// Pull pulls an image.
func (c *Client) Pull(ctx context.Context, name string) error {
	if _, err := c.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: name}}); err != nil {
		return fmt.Errorf("pull %s: %w", name, err)
	}
	return nil
}

// Start creates and starts a container of the pod and returns its id.
func (s *Sandbox) Start(ctx context.Context, name, image string, command ...string) (string, error) {
	created, err := s.client.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId:  s.ID,
		SandboxConfig: s.config,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name},
			Image:    &runtimeapi.ImageSpec{Image: image},
			Command:  command,
			LogPath:  name + ".log",
			Linux:    &runtimeapi.LinuxContainerConfig{},
		},
	})
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", name, err)
	}
	if _, err := s.client.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return "", fmt.Errorf("start container %s: %w", name, err)
	}
	return created.ContainerId, nil
}

// Exec runs a program in a container and returns what it prints. It is an error if the
// program cannot be run or fails.
func (c *Client) Exec(ctx context.Context, container string, command ...string) (string, error) {
	answer, err := c.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: command, Timeout: seconds(ctx)})
	if err != nil {
		return "", fmt.Errorf("exec of %s: %w", command, err)
	}
	if answer.ExitCode != 0 {
		return "", fmt.Errorf("exec of %s: exit status %d: %s", command, answer.ExitCode, answer.Stderr)
	}
	return string(answer.Stdout), nil
}

// seconds is the time that is left, rounded up; 0, which is without end, if that has no
// bound.
func seconds(ctx context.Context) int64 {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		return 0
	}
	return int64(time.Until(deadline)/time.Second) + 1
}

// RemovePods stops and removes all pods, with their containers.
func (c *Client) RemovePods(ctx context.Context) error {
	all, err := c.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for _, pod := range all.Items {
		if _, err := c.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
			return fmt.Errorf("stop pod %s: %w", pod.Id, err)
		}
		if _, err := c.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
			return fmt.Errorf("remove pod %s: %w", pod.Id, err)
		}
	}
	return nil
}
