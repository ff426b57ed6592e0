package keeper

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// thread is what the kernel says of a thread (proc_pid_stat(5); Linux,
// Documentation/scheduler/sched-stats.rst).
type thread struct {
	state  byte          // 'R' if it runs or would, 'T' or 't' if it is stopped
	ran    time.Duration // on a processor
	waited time.Duration // for one, until it ran last
}

// maxThreads bounds the threads looked at of a process.
const maxThreads = 1024

// threadsOf returns a process's threads by their number.
func threadsOf(pid int) map[string]thread {
	path := "/proc/" + strconv.Itoa(pid) + "/task"
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxThreads)
	all := make(map[string]thread, len(names))
	for _, name := range names {
		t := thread{state: stateOf(path + "/" + name + "/stat")}
		if text, err := os.ReadFile(path + "/" + name + "/schedstat"); err == nil {
			_, _ = fmt.Sscan(string(text), &t.ran, &t.waited)
		}
		all[name] = t
	}
	return all
}

// starved reports whether want of a processor can be why a process did nothing between
// two looks at its threads, d apart: one has waited for a good part of that, or has
// been about to run all the time and has not. Threads that are not known are no proof
// of anything else.
func starved(before, after map[string]thread, d time.Duration) bool {
	for name, now := range after {
		was, known := before[name]
		if !known {
			continue
		}
		if now.waited-was.waited > d/4 || was.state == 'R' && now.state == 'R' && now.ran-was.ran < d/4 {
			return true
		}
	}
	return len(after) == 0
}

// stopped reports whether a process is stopped, by a signal or a debugger.
func stopped(pid int) bool {
	state := stateOf("/proc/" + strconv.Itoa(pid) + "/stat")
	return pid != 0 && (state == 'T' || state == 't')
}

// stateOf returns the state in a stat file of /proc, a letter (proc_pid_stat(5)); 0 if
// there is none.
func stateOf(path string) byte {
	text, err := os.ReadFile(path)
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
