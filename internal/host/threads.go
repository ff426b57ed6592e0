package host

import (
	"fmt"
	"os"
	"time"
)

// Thread is the kernel's account of a thread (proc_pid_stat(5); Linux,
// Documentation/scheduler/sched-stats.rst).
type Thread struct {
	State  byte          // 'R' if it runs or is ready to, 'T' or 't' if it is stopped
	Ran    time.Duration // on a processor
	Waited time.Duration // for a processor, up to its last run
}

// maxThreads bounds the threads looked at per process.
const maxThreads = 1024

// Threads returns a process's threads by their id.
func (p Proc) Threads(pid int) map[string]Thread {
	path := p.path(pid, "task")
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxThreads)
	all := make(map[string]Thread, len(names))
	for _, name := range names {
		t := Thread{State: stateOf(path + "/" + name + "/stat")}
		if text, err := readBounded(path+"/"+name+"/schedstat", maxStat); err == nil {
			_, _ = fmt.Sscan(string(text), &t.Ran, &t.Waited)
		}
		all[name] = t
	}
	return all
}

// Starved reports whether a process may have done nothing for want of a processor between
// two looks at its threads, d apart. Either a thread has waited for a processor for more
// than a quarter of d, or it was ready at both looks and hardly ran. Without threads to
// look at, the answer is true.
func Starved(before, after map[string]Thread, d time.Duration) bool {
	for name, now := range after {
		was, known := before[name]
		if !known {
			continue
		}
		if now.Waited-was.Waited > d/4 || was.State == 'R' && now.State == 'R' && now.Ran-was.Ran < d/4 {
			return true
		}
	}
	return len(after) == 0
}

// State returns a process's state, as in Thread; 0 if there is no such process.
func (p Proc) State(pid int) byte { return stateOf(p.path(pid, "stat")) }

// Stopped reports whether a process is stopped, by a signal or a debugger.
func (p Proc) Stopped(pid int) bool {
	state := p.State(pid)
	return pid != 0 && (state == 'T' || state == 't')
}

// stateOf returns the state letter in a stat file of /proc; 0 if there is none.
func stateOf(path string) byte {
	var room [maxStat]byte
	fields, err := statFields(room[:], path)
	if err != nil {
		return 0
	}
	state := nthField(fields, 0)
	if len(state) == 0 {
		return 0
	}
	return state[0]
}
