package explain_test

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/internal/explain"
)

// bundle is a container that ctr runs by a specification of its own.
type bundle struct {
	root string // the root file system's directory
	hook string // seconds that a hook sleeps, none if empty
	// cgroup is the one that its own is in; the rig's if empty.
	cgroup string
	lives  bool // until its start is explained: what its cgroup has met is read while it does
}

// spec returns the specification of a container in which nothing goes on.
func (s *site) spec(id string, b bundle) []byte {
	s.Helper()
	res := s.Rig.Ctr("oci", "spec")
	check(s.T, res.Check())
	var spec map[string]any
	check(s.T, json.Unmarshal([]byte(res.Stdout), &spec))
	spec["root"] = map[string]any{"path": b.root}
	spec["linux"].(map[string]any)["cgroupsPath"] = filepath.Join(cmp.Or(b.cgroup, "/"+s.Rig.Name), id)
	process := spec["process"].(map[string]any)
	process["args"], process["cwd"] = []string{"/busybox", "true"}, "/"
	if b.lives {
		process["args"] = []string{"/busybox", "sleep", "1000"}
	}
	if b.hook != "" {
		spec["hooks"] = map[string]any{"createRuntime": []any{map[string]any{"path": image.BusyboxPath, "args": []string{"busybox", "sleep", b.hook}}}}
	}
	data, err := json.Marshal(spec)
	check(s.T, err)
	return data
}

// run runs a container of a bundle, and explains its start. begin, if not nil, begins what
// it is to suffer from, and returns what goes on meanwhile.
func (s *site) run(id string, b bundle, begin func() (meanwhile func())) *explain.Explanation {
	s.Helper()
	file := filepath.Join(s.Rig.Dir, id+".json")
	check(s.T, os.WriteFile(file, s.spec(id, b), 0o600))
	busybox(s.T, b.root)
	if begin != nil {
		meanwhile, done := begin(), make(chan struct{})
		go func() { defer close(done); meanwhile() }()
		defer func() { <-done }()
	}
	until := "--rm"
	if b.lives {
		until = "--detach"
		defer func() {
			check(s.T, s.Rig.Ctr("tasks", "rm", "--force", id).Check())
			check(s.T, s.Rig.Ctr("containers", "rm", id).Check())
		}()
	}
	check(s.T, s.Rig.Ctr("run", until, "--runtime", s.Runtime.Shim(), "--config", file, id).Check())
	return s.explained(id, called)
}

// busybox puts the program into a root file system.
func busybox(t *testing.T, root string) {
	t.Helper()
	program, err := os.ReadFile(image.BusyboxPath)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(root, "busybox"), program, 0o755))
}
