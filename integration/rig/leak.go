package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// waitNoLeaks waits until nothing of the scenario is left, and returns what
// still is after that long.
func (r *Rig) waitNoLeaks(patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		left, err := r.leaks()
		if err != nil || len(left) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("left behind after all containers were removed:\n  %s", strings.Join(left, "\n  "))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// leaks lists what would be left behind if all were over now: processes,
// sockets, mounts, bundles, runc's state and cgroups. Close calls it when all
// containers are removed; a test may, at a moment when it has removed its own.
func (r *Rig) leaks() ([]string, error) {
	var left []string
	for _, p := range r.Processes() {
		left = append(left, "process "+p.String())
	}
	sockets, err := r.sockets()
	if err != nil {
		return nil, err
	}
	for _, s := range sockets {
		left = append(left, "socket "+s)
	}
	mounts, err := r.space.mountPoints()
	if err != nil {
		return nil, err
	}
	for m := range mounts {
		if !r.mounts[m] {
			left = append(left, "mount "+m)
		}
	}
	for kind, pattern := range map[string]string{
		"bundle":     "state/io.containerd.runtime.v2.task/*/*",
		"runc state": "run/containerd/runc/*/*",
	} {
		paths, err := filepath.Glob(filepath.Join(r.Dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			left = append(left, kind+" "+p)
		}
	}
	for _, c := range cgroups(r.Name) {
		if children, _ := filepath.Glob(filepath.Join(c, "*", "cgroup.procs")); len(children) > 0 {
			left = append(left, "cgroup "+filepath.Dir(children[0]))
		}
	}
	slices.Sort(left)
	return left, nil
}

// sockets lists the sockets of shims: all in the rig but containerd's own.
func (r *Rig) sockets() ([]string, error) {
	var found []string
	for _, dir := range []string{"run", "sockets", "state", "tmp"} {
		err := filepath.WalkDir(filepath.Join(r.Dir, dir), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed while we look
			}
			if err == nil && d.Type() == fs.ModeSocket {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list the rig's sockets: %w", err)
		}
	}
	return found, nil
}

// cgroups lists the rig's cgroup in every hierarchy, of version 1 and 2.
func cgroups(name string) []string {
	v1, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", name))
	v2, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", name))
	return append(v1, v2...)
}

// removeCgroup removes a cgroup and those below it, the lowest first.
func removeCgroup(dir string) error {
	var dirs []string
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
