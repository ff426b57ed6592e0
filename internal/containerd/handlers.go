package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// askTime bounds an answer of CRI.
const askTime = 5 * time.Second

// Handler is a runtime handler that CRI has loaded.
type Handler struct {
	Name string `json:"-"`
	Type string `json:"runtimeType"`
	Path string `json:"runtimePath"`
}

// Handlers returns the handlers that the CRI at a socket has loaded, by name. It asks for
// the effective configuration, which CRI of containerd 1.6 to 2.4 gives beside its
// status (internal/cri/server/status.go, and pkg/cri/server/status.go of 1.x).
func Handlers(ctx context.Context, socket string) (map[string]Handler, error) {
	var status *runtimeapi.StatusResponse
	err := ask(ctx, socket, func(ctx context.Context, cri runtimeapi.RuntimeServiceClient) (err error) {
		status, err = cri.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
		return err
	})
	if err != nil {
		return nil, err
	}
	return parseHandlers(status.Info["config"])
}

// AskVersion returns the version of the containerd whose CRI is at a socket, as
// [Version] does.
func AskVersion(ctx context.Context, socket string) (string, error) {
	var version *runtimeapi.VersionResponse
	err := ask(ctx, socket, func(ctx context.Context, cri runtimeapi.RuntimeServiceClient) (err error) {
		version, err = cri.Version(ctx, &runtimeapi.VersionRequest{})
		return err
	})
	return plain(version.GetRuntimeVersion()), err
}

// ask asks the CRI at a socket something.
func ask(ctx context.Context, socket string, what func(context.Context, runtimeapi.RuntimeServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		defer conn.Close()
		err = what(ctx, runtimeapi.NewRuntimeServiceClient(conn))
	}
	if err != nil {
		return fmt.Errorf("ask CRI at %s: %w", socket, err)
	}
	return nil
}

// parseHandlers reads CRI's effective configuration.
func parseHandlers(config string) (map[string]Handler, error) {
	var c struct {
		Containerd struct {
			Runtimes map[string]Handler `json:"runtimes"`
		} `json:"containerd"`
	}
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return nil, fmt.Errorf("the configuration that CRI has loaded: %w", err)
	}
	for name, h := range c.Containerd.Runtimes {
		h.Name = name
		c.Containerd.Runtimes[name] = h
	}
	return c.Containerd.Runtimes, nil
}
