package procevents

import (
	"slices"
	"time"
)

// list reports the helpers of a root that are there, and begins to follow those that it
// does not know.
func (f *follower) list(r *Root) {
	_, asleep := clock()
	f.listBelow(f.nodes[r.process.PID], asleep)
	r.Report(Report{Kind: Listed, At: Now()})
}

func (f *follower) listBelow(above *node, asleep time.Duration) {
	if above == nil || above.inside {
		return
	}
	for _, pid := range f.proc.Children(above.pid) {
		n := f.nodes[pid]
		if n == nil {
			parent, start, err := f.proc.Stat(pid)
			if err != nil || parent != above.pid || above.root.nodes >= maxNodes {
				continue
			}
			n = &node{pid: pid, root: above.root, above: above, forked: time.Duration(start)*tick - asleep}
			f.nodes[pid] = n
			n.root.nodes++
		}
		f.find(n, above)
		if f.nodes[pid] == n {
			f.listBelow(n, asleep)
		}
	}
}

// find reports a process that is there, if it is a helper.
func (f *follower) find(n, above *node) {
	switch p, ok := filesOf(f.proc, n.pid); {
	case n.helper:
		if n.end.What != exited {
			n.root.Report(Report{
				Kind: Runs, PID: n.pid, Start: n.start, Above: n.helperAbove(), Forked: n.forked, At: n.forked,
				Program: n.program, Role: n.role, Subcommand: n.subcommand, Container: n.container, Exec: n.exec,
			})
		}
	case !ok:
	case !n.root.VM && p != n.root.files:
		// A container's process. If it has not executed its program yet, that will be seen;
		// otherwise it is not followed.
		if d := describe(f.proc, n.pid); d.role != OCIRuntime || d.subcommand != "init" {
			f.remove(n)
		}
	case !f.forkedOnly(n, above):
		f.executes(n, n.forked, Runs)
	}
}

// forkedOnly reports whether a process has executed nothing since it was forked.
func (f *follower) forkedOnly(n, above *node) bool {
	p, err := f.proc.Process(n.pid)
	if err != nil {
		return true
	}
	parent, err := f.proc.Process(above.pid)
	return err == nil && p.Exe == parent.Exe && slices.EqualFunc(f.proc.Args(n.pid), f.proc.Args(above.pid), slices.Equal)
}

// lives reports whether a node's process is still there, and not another one with its pid.
func (f *follower) lives(n *node) bool {
	start, err := f.proc.Start(n.pid)
	if err != nil {
		return false
	}
	if n.start != 0 {
		return n.start == start
	}
	_, asleep := clock()
	off := time.Duration(start)*tick - (n.forked + asleep)
	return off > -3*tick && off < 3*tick
}
