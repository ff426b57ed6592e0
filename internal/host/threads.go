package host

import (
	"bytes"
	"fmt"
	"os"
	"time"
)

// Thread is what the kernel says of a thread (proc_pid_stat(5); Linux,
// Documentation/scheduler/sched-stats.rst).
type Thread struct {
	State  byte          // 'R' if it runs or would, 'T' or 't' if it is stopped
	Ran    time.Duration // on a processor
	Waited time.Duration // for one, until it ran last
}

// maxThreads bounds the threads looked at of a process.
const maxThreads = 1024

// Threads returns a process's threads by their number.
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

// Starved reports whether want of a processor can be why a process did nothing between
// two looks at its threads, d apart: one has waited for a good part of that, or has
// been about to run all the time and has not. Threads that are not known are no proof
// of anything else.
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

// State returns a process's state, as Thread has it; 0 if there is none.
func (p Proc) State(pid int) byte { return stateOf(p.path(pid, "stat")) }

// Stopped reports whether a process is stopped, by a signal or a debugger.
func (p Proc) Stopped(pid int) bool {
	state := p.State(pid)
	return pid != 0 && (state == 'T' || state == 't')
}

// stateOf returns the state in a stat file of /proc, a letter (proc_pid_stat(5)); 0 if
// there is none.
func stateOf(path string) byte {
	text, err := readBounded(path, maxStat)
	if err != nil {
		return 0
	}
	// The name, which may hold anything, ends with the last parenthesis.
	state := bytes.TrimSpace(text[bytes.LastIndexByte(text, ')')+1:])
	if len(state) == 0 {
		return 0
	}
	return state[0]
}
