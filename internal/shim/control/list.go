package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shimtrace/shimtrace/internal/private"
)

// Suffix is what the names of control sockets end with; the rest is the name of the
// relay's state file.
const Suffix = ".ctl"

const stateSuffix = ".json"

// Relay is a relay that has files below a state directory. It need not live.
type Relay struct {
	Sandbox      string `json:"sandbox"`
	Namespace    string `json:"namespace"` // containerd's
	Inner        string `json:"inner"`     // path of the inner shim
	Pod          string `json:"pod"`
	PodNamespace string `json:"pod_namespace"`
	// Dynamic: it can be switched. Others trace from their beginning to their end.
	Dynamic bool `json:"dynamic"`
	// RelaySock is where containerd connects to it.
	RelaySock string `json:"relay_socket"`

	// Socket is where it can be asked. A relay that is not Dynamic may be too old to have it.
	Socket string `json:"-"`
}

// Name is what an operator calls the sandbox: its pod's name, else its id.
func (r Relay) Name() string {
	if r.Pod != "" {
		return r.PodNamespace + "/" + r.Pod
	}
	return r.Sandbox
}

// maxState bounds a state file in bytes.
const maxState = 1 << 20

// List returns the relays whose files are below a state directory (relay.state_dir),
// in the order of their file names; none if the directory is not there. Files that
// are not readable as a relay's are passed over.
func List(stateDir string) ([]Relay, error) {
	dir := filepath.Join(stateDir, "s")
	var entries []os.DirEntry
	err := private.CheckDir(dir)
	if err == nil {
		entries, err = os.ReadDir(dir)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("list the relays: %w: run it as root, to whom they belong", err)
	case err != nil:
		return nil, fmt.Errorf("list the relays: %w", err)
	}
	var all []Relay
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), stateSuffix)
		if !ok || strings.HasPrefix(base, ".") {
			continue
		}
		if r, err := readRelay(filepath.Join(dir, e.Name())); err == nil {
			r.Socket = filepath.Join(dir, base+Suffix)
			all = append(all, r)
		}
	}
	return all, nil
}

func readRelay(path string) (r Relay, err error) {
	text, err := private.Read(path, maxState)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	if r.Sandbox == "" {
		return r, fmt.Errorf("%s: no sandbox", path)
	}
	return r, nil
}
