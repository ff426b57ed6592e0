// Package processors has relays use few processors. For each processor that Go's runtime
// may use, it takes memory and threads, and a frame that passes from one to another waits
// for a thread to wake up. A large host has many.
//
// A process is best told before it begins, by its environment. What it starts must not get
// that environment.
package processors

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

const (
	variable = "GOMAXPROCS"
	// ours says that we have set the variable, and has the value that it had before:
	// containerd sets it to 2 for shims.
	ours = "SHIMTRACE_ONE_PROCESSOR"
)

// Environ returns this process's environment for a process that is to begin with one
// processor, and that calls Begin.
func Environ() []string {
	own := func(kv string) bool { return strings.HasPrefix(kv, variable+"=") }
	return append(slices.DeleteFunc(os.Environ(), own), variable+"=1", ours+"="+os.Getenv(variable))
}

// Most is how many processors a process may use.
type Most int

// Begin returns how many this process may use, and gives it the environment that its starter
// had. It is called before this process starts another.
func Begin() Most {
	if set, is := os.LookupEnv(ours); is {
		os.Unsetenv(ours)
		if set == "" {
			os.Unsetenv(variable)
		} else {
			os.Setenv(variable, set)
		}
		if n, err := strconv.Atoi(set); err == nil && n > 0 {
			return Most(n)
		}
		return Most(runtime.NumCPU())
	}
	return Most(runtime.GOMAXPROCS(0))
}

// Use has the process use n processors, or as many as it may.
func (m Most) Use(n int) {
	if n = min(n, int(m)); n != runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(n)
	}
}
