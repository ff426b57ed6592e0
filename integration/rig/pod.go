package rig

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shimtrace/shimtrace/integration/image"
)

// A Pod says what sandbox CRI is to run. Only Name is required, and unique in
// a rig among the pods of one time.
type Pod struct {
	Name        string
	Namespace   string // default if empty
	UID         string // Name if empty
	Runtime     string // the handler: Runtime.Name, or runc if empty
	HostNetwork bool   // the rig's network namespace instead of one of its own
	Labels      map[string]string
	Annotations map[string]string
}

// A Container says what CRI is to run in a pod. Only Name is required.
type Container struct {
	Name    string
	Image   string   // image.Busybox if empty
	Command []string // sleeping until SIGTERM if empty
	Env     map[string]string
}

// Sleep ends at SIGTERM, so that a stop takes no grace period.
var Sleep = []string{"/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"}

// A Sandbox is a pod that CRI runs.
type Sandbox struct {
	ID string

	rig  *Rig
	name string
	file string // the pod's configuration
}

// RunPod starts a pod's sandbox.
func (r *Rig) RunPod(pod Pod) (*Sandbox, error) {
	namespace, uid := pod.Namespace, pod.UID
	if namespace == "" {
		namespace = "default"
	}
	if uid == "" {
		uid = pod.Name
	}
	network := 0 // POD of CRI's NamespaceMode
	if pod.HostNetwork {
		network = 2 // NODE
	}
	file, err := r.writeJSON(pod.Name, map[string]any{
		"metadata":      map[string]any{"name": pod.Name, "namespace": namespace, "uid": uid},
		"log_directory": filepath.Join(r.Dir, "logs", pod.Name),
		"labels":        pod.Labels,
		"annotations":   pod.Annotations,
		"linux": map[string]any{
			"cgroup_parent": "/" + r.Name,
			"security_context": map[string]any{
				"namespace_options": map[string]any{"network": network},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	res := r.Crictl("runp", "--runtime="+pod.Runtime, file)
	if err := res.Check(); err != nil {
		return nil, err
	}
	return &Sandbox{ID: res.Out(), rig: r, name: pod.Name, file: file}, nil
}

// Run creates and starts a container and returns its id.
func (s *Sandbox) Run(c Container) (string, error) {
	id, err := s.Create(c)
	if err != nil {
		return "", err
	}
	return id, s.rig.Crictl("start", id).Check()
}

// Create creates a container, for crictl start to start, and returns its id.
func (s *Sandbox) Create(c Container) (string, error) {
	if c.Image == "" {
		c.Image = image.Busybox
	}
	if c.Command == nil {
		c.Command = Sleep
	}
	env := []map[string]string{}
	for k, v := range c.Env {
		env = append(env, map[string]string{"key": k, "value": v})
	}
	file, err := s.rig.writeJSON(s.name+"."+c.Name, map[string]any{
		"metadata": map[string]any{"name": c.Name},
		"image":    map[string]any{"image": c.Image},
		"command":  c.Command,
		"envs":     env,
		"log_path": c.Name + ".log",
		"linux":    map[string]any{},
	})
	if err != nil {
		return "", err
	}
	res := s.rig.Crictl("create", s.ID, file, s.file)
	return res.Out(), res.Check()
}

// Log is what the container of that name has written, in CRI's log format.
func (s *Sandbox) Log(container string) (string, error) {
	data, err := os.ReadFile(filepath.Join(s.rig.Dir, "logs", s.name, container+".log"))
	return string(data), err
}

// Remove stops and removes the pod with all its containers.
func (s *Sandbox) Remove() error {
	if err := s.rig.Crictl("stopp", s.ID).Check(); err != nil {
		return err
	}
	return s.rig.Crictl("rmp", s.ID).Check()
}

func (r *Rig) writeJSON(name string, v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	path := filepath.Join(r.Dir, "cri", name+".json")
	return path, os.WriteFile(path, data, 0o644)
}
