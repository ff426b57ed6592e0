package explain_test

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/internal/explain"
)

// bundle is a container that ctr runs by a specification of its own.
type bundle struct {
	root string // the root file system's directory
	hook string // seconds that a hook sleeps, none if empty
}

// run runs a container of a bundle in which nothing goes on, with do meanwhile, and
// explains its start.
func (s *site) run(id string, b bundle, do func()) *explain.Explanation {
	s.Helper()
	res := s.Rig.Ctr("oci", "spec")
	check(s.T, res.Check())
	var spec map[string]any
	check(s.T, json.Unmarshal([]byte(res.Stdout), &spec))
	spec["root"] = map[string]any{"path": b.root}
	spec["linux"].(map[string]any)["cgroupsPath"] = "/" + s.Rig.Name + "/" + id
	process := spec["process"].(map[string]any)
	process["args"], process["cwd"] = []string{"/busybox", "true"}, "/"
	if b.hook != "" {
		spec["hooks"] = map[string]any{"createRuntime": []any{map[string]any{"path": image.BusyboxPath, "args": []string{"busybox", "sleep", b.hook}}}}
	}
	data, err := json.Marshal(spec)
	check(s.T, err)
	file := filepath.Join(s.Rig.Dir, id+".json")
	check(s.T, os.WriteFile(file, data, 0o600))
	busybox, err := os.ReadFile(image.BusyboxPath)
	check(s.T, err)
	check(s.T, os.WriteFile(filepath.Join(b.root, "busybox"), busybox, 0o755))
	if do != nil {
		done := make(chan struct{})
		go func() { defer close(done); do() }()
		defer func() { <-done }()
	}
	check(s.T, s.Rig.Ctr("run", "--rm", "--runtime", s.Runtime.Shim(), "--config", file, id).Check())
	return s.explained(id, called)
}
