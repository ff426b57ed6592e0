package host

import (
	"bytes"
	"path/filepath"
	"strconv"
)

const (
	// maxDescendants bounds the descendants looked at. A VM's shim has a handful.
	maxDescendants = 1024
	// maxChildren bounds a list of children, in bytes.
	maxChildren = 16 << 10
)

// Descendants returns the processes below ancestor in its process namespace, parents
// first; none if ancestor is gone. Each was a child of ancestor or another one when it
// was looked at, and started after its parent: a reused pid makes nobody a descendant.
func (p Proc) Descendants(ancestor Process) (all []Process) {
	if start, err := p.Start(ancestor.PID); err != nil || start != ancestor.Start {
		return nil
	}
	all = []Process{ancestor}
	for i := 0; i < len(all) && len(all) < maxDescendants; i++ {
		for _, pid := range p.Children(all[i].PID) {
			child, err := p.Process(pid)
			if err != nil || child.Parent != all[i].PID || child.Start < all[i].Start || child.PIDNamespace != ancestor.PIDNamespace {
				continue
			}
			all = append(all, child)
		}
		// If the parent has gone meanwhile, the children may be another process's.
		if start, err := p.Start(all[i].PID); err != nil || start != all[i].Start {
			return all[1 : i+1]
		}
	}
	return all[1:]
}

// Children returns the pids of a process's children. The kernel lists a child at the
// thread that started it.
func (p Proc) Children(pid int) (pids []int) {
	lists, _ := filepath.Glob(p.path(pid, "task", "*", "children"))
	for _, list := range lists {
		text, err := readBounded(list, maxChildren)
		if err != nil {
			continue
		}
		for field := range bytes.FieldsSeq(text) {
			if child, err := strconv.Atoi(string(field)); err == nil && len(pids) < maxDescendants {
				pids = append(pids, child)
			}
		}
	}
	return pids
}
