package procevents

import (
	"os"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
)

// follower follows the processes below some roots. It is not safe for concurrent use.
type follower struct {
	proc    host.Proc
	nodes   map[int]*node
	roots   []*Root
	ending  []*node // that seem to have ended, in the order of their ends
	young   []*node // helpers whose processor time is looked at
	recent  [recentEvents]event
	last    int  // in recent
	moved   bool // something has happened to a process that is followed
	changed bool // the roots have
}

// Root is a process whose descendants are followed: a sandbox's inner shim.
type Root struct {
	// VM: nothing that the process executes is in a container, whatever files it sees: the
	// containers are in a VM.
	VM bool
	// Report is told of the helpers, by whoever calls the follower's methods.
	Report func(Report)

	process host.Process
	files   files
	nodes   int
}

const (
	// maxNodes bounds the processes that are followed for one root.
	maxNodes = 4096
	// endTime is for how long the apparent end of a process may not be one, because another
	// of its threads executes a program.
	endTime = 20 * time.Millisecond
	// youth is how long a helper is young. When its end is known, its parent may have
	// waited for it, and its processor time is gone. So the processor time of a young
	// helper is read every lookTime.
	youth    = 5 * time.Second
	lookTime = 5 * time.Millisecond
	// recentEvents is how many events of processes that are not followed are remembered,
	// for roots that become known late.
	recentEvents = 512
)

// node is a process that is followed.
type node struct {
	pid    int
	root   *Root
	above  *node // that has forked it; nil: it is the root
	forked time.Duration
	start  uint64 // once it has executed something
	described
	helper bool // it has executed something
	files  files
	looked bool
	inside bool // it has executed something in a container other than the container's program
	lost   bool // it was gone before anybody could tell where it was
	end    event
	cpu    time.Duration
}

// newFollower returns a follower that looks at processes in a proc file system.
func newFollower(proc host.Proc) *follower {
	return &follower{proc: proc, nodes: make(map[int]*node)}
}

// follow begins to follow the processes below a process, and reports those that are there.
// The process must have started at start (host.Process.Start; 0: at any time). follow
// returns false if that process is gone.
func (f *follower) follow(pid int, start uint64, r *Root) bool {
	p, err := f.proc.Process(pid)
	if err != nil || start != 0 && p.Start != start {
		return false
	}
	r.process = p
	r.files, _ = filesOf(f.proc, pid)
	if old := f.nodes[pid]; old != nil {
		f.leave(old.root)
	}
	f.roots, f.changed = append(f.roots, r), true
	f.nodes[pid] = &node{pid: pid, root: r, start: p.Start, files: r.files, looked: true}
	f.catchUp()
	f.list(r)
	return true
}

// leave no longer follows what is below a root.
func (f *follower) leave(r *Root) {
	for pid, n := range f.nodes {
		if n.root == r {
			delete(f.nodes, pid)
		}
	}
	f.ending = slices.DeleteFunc(f.ending, func(n *node) bool { return n.root == r })
	f.roots, f.changed = slices.DeleteFunc(f.roots, func(other *Root) bool { return other == r }), true
}

// over reports that a root has ended, and no longer follows what is below it.
func (f *follower) over(r *Root, at time.Duration) {
	r.Report(Report{Kind: Over, At: at})
	f.leave(r)
}

func (f *follower) rootPIDs() (pids []int) {
	for _, r := range f.roots {
		pids = append(pids, r.process.PID)
	}
	return pids
}

// take follows an event.
func (f *follower) take(e event) {
	of := e.PID
	if e.What == forked {
		of = e.Parent
	}
	n := f.nodes[of]
	switch {
	case n == nil:
		f.recent[f.last] = e
		f.last = (f.last + 1) % recentEvents
		return
	case e.What == forked:
		f.fork(n, e)
	case e.What == executed && n.above != nil:
		f.exec(n, e)
	case e.What == exited:
		f.exit(n, e)
	}
	f.moved = true
}

// catchUp takes the remembered events of processes that are followed only now, and are
// still there.
func (f *follower) catchUp() {
	ended := make(map[int]bool)
	for _, e := range f.recent {
		if e.What == exited {
			ended[e.PID] = true
		}
	}
	for i := range f.recent {
		e := f.recent[(f.last+i)%recentEvents]
		if ended[e.PID] {
			continue
		}
		if n := f.nodes[e.Parent]; e.What == forked && n != nil && f.nodes[e.PID] == nil {
			f.fork(n, e)
		}
		if n := f.nodes[e.PID]; e.What == executed && n != nil && n.above != nil && !n.helper {
			f.exec(n, e)
		}
	}
}

func (f *follower) fork(parent *node, e event) {
	if old := f.nodes[e.PID]; old != nil { // whose end was not seen, or is just being waited for
		f.finish(old, old.end.What != exited)
	}
	if parent.lost {
		return // it may be a container's
	}
	if parent.root.nodes >= maxNodes {
		parent.root.Report(Report{Kind: Dropped, At: e.At, Lost: 1})
		return
	}
	parent.root.nodes++
	f.nodes[e.PID] = &node{pid: e.PID, root: parent.root, above: parent, forked: e.At}
}

func (f *follower) exec(n *node, e event) {
	if n.end.What == exited { // it was one of its threads
		n.end = event{}
		f.ending = slices.DeleteFunc(f.ending, func(other *node) bool { return other == n })
	}
	f.executes(n, e.At, Began)
}

// executes reports what a process executes.
func (f *follower) executes(n *node, at time.Duration, kind Kind) {
	known := true
	if n.files, n.looked = filesOf(f.proc, n.pid); !n.root.VM {
		away := n.looked && n.files != n.root.files
		from, ok := f.madeInside(n)
		switch {
		case !away:
			known = n.looked
		case !ok:
			known = false
		case !from:
			f.enters(n, at)
			return
		}
		// What a container's process executes before its own program is a hook.
		n.inside, n.lost = away, !known
	}
	was := n.described
	n.described = described{}
	if known {
		n.described = describe(f.proc, n.pid)
	}
	if n.role == "" && n.program != "" && n.runtime() != nil {
		n.role = Hook
	}
	if n.helper && kind == Began && was.program == n.program && was.subcommand == n.subcommand {
		return // a copy of itself
	}
	if !n.helper {
		f.young = append(f.young, n)
	}
	n.helper = true
	if start, err := f.proc.Start(n.pid); err == nil {
		n.start = start
	}
	n.root.Report(Report{
		Kind: kind, PID: n.pid, Start: n.start, Above: n.helperAbove(), Forked: n.forked, At: at,
		Program: n.program, Role: n.role, Subcommand: n.subcommand, Container: n.container, Exec: n.exec,
	})
}

// madeInside reports whether a process was forked by one that is in a container already.
func (f *follower) madeInside(n *node) (inside, ok bool) {
	above := n.above
	if above.above == nil {
		return false, true // the root is not
	}
	if above.helper {
		return above.inside, true
	}
	p, ok := filesOf(f.proc, above.pid)
	return p != n.root.files, ok
}

// enters reports that a process executes a container's program, and which command of an OCI
// runtime has made the process. That command may have ended.
func (f *follower) enters(n *node, at time.Duration) {
	f.remove(n)
	r := Report{Kind: Inside, PID: n.pid, Above: n.helperAbove(), Forked: n.forked, At: at}
	for a := n.above; a != nil; a = a.above {
		if a.container != "" {
			r.Subcommand, r.Container, r.Exec = a.subcommand, a.container, a.exec
			break
		}
	}
	n.root.Report(r)
}

// runtime returns the OCI runtime that a process is below, nil if it is below none.
func (n *node) runtime() *node {
	for a := n.above; a != nil; a = a.above {
		if a.role == OCIRuntime {
			return a
		}
	}
	return nil
}

func (n *node) helperAbove() int {
	for a := n.above; a != nil && a.above != nil; a = a.above {
		if a.helper {
			return a.pid
		}
	}
	return 0
}

func (f *follower) exit(n *node, e event) {
	switch {
	case n.above == nil:
		for _, other := range slices.Clone(f.ending) {
			if other.root == n.root {
				f.finish(other, false)
			}
		}
		f.over(n.root, e.At)
	case !n.helper:
		f.remove(n)
	case n.end.What != exited:
		n.end, n.cpu = e, max(n.cpu, host.CPUTime(n.pid))
		if f.ended(n) {
			f.finish(n, false)
		} else {
			f.ending = append(f.ending, n)
		}
	}
}

// ended reports whether the end of a process's first thread is that of the process. If
// another thread executes a program, that thread goes on under the process's pid, and the
// first one ends with the status 0 (Linux, fs/exec.c, de_thread).
func (f *follower) ended(n *node) bool {
	threads, err := os.ReadDir(path(f.proc, n.pid, "task"))
	return n.end.Status != 0 || err != nil || len(threads) == 1 && f.proc.State(n.pid) == 'Z'
}

// settle reports the ends that are certain at a moment, looks at the processor time of
// young helpers, and returns after how long it is to be called again; 0: not until there
// is an event.
func (f *follower) settle(now time.Duration) (next time.Duration) {
	for _, n := range slices.Clone(f.ending) {
		if n.end.At+endTime <= now || f.ended(n) {
			f.finish(n, false)
		}
	}
	if len(f.ending) > 0 {
		next = time.Millisecond
	}
	f.young = slices.DeleteFunc(f.young, func(n *node) bool { return f.nodes[n.pid] != n || n.end.What == exited || now-n.forked > youth })
	for _, n := range f.young {
		n.cpu = max(n.cpu, host.CPUTime(n.pid))
	}
	if next == 0 && len(f.young) > 0 {
		next = lookTime
	}
	return next
}

// finish reports the end of a process.
func (f *follower) finish(n *node, lost bool) {
	f.remove(n)
	f.ending = slices.DeleteFunc(f.ending, func(other *node) bool { return other == n })
	if !n.helper {
		return
	}
	r := Report{Kind: Ended, PID: n.pid, Start: n.start, At: n.end.At, Status: n.end.Status, CPU: n.cpu}
	if lost {
		r.At, r.Lost = Now(), 1
	}
	n.root.Report(r)
}

func (f *follower) remove(n *node) {
	if f.nodes[n.pid] == n {
		delete(f.nodes, n.pid)
		n.root.nodes--
	}
}

// dropped is called when the kernel has dropped events: whatever may have been missed is
// looked for.
func (f *follower) dropped(events int) {
	now := Now()
	for _, n := range f.nodes {
		if n.above != nil && n.end.What != exited && !f.lives(n) {
			f.finish(n, true)
		}
	}
	for _, r := range slices.Clone(f.roots) {
		if start, err := f.proc.Start(r.process.PID); err != nil || start != r.process.Start {
			f.over(r, now)
			continue
		}
		r.Report(Report{Kind: Dropped, At: now, Lost: events})
		f.list(r)
	}
}

// tick is a clock tick, in which the kernel counts starts.
const tick = 10 * time.Millisecond
