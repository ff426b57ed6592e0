// Package processors has relays use few processors. With each that Go's runtime is told of come
// memory of its own and threads, and between two of them a frame waits for a thread to wake
// up; on a large host these are many.
//
// A process is told best before it begins, by its environment, and that not to be handed on.
package processors

import (
	"os"
	"runtime"
)

const (
	variable = "GOMAXPROCS"
	// ours says that the variable is not what somebody has set.
	ours = "SHIMTRACE_ONE_PROCESSOR"
)

// Environ returns this process's environment for one that is to begin with one processor, and
// calls Begin. What somebody has set stays.
func Environ() []string {
	env := os.Environ()
	if _, set := os.LookupEnv(variable); !set {
		env = append(env, variable+"=1", ours+"=1")
	}
	return env
}

// Most is how many processors a process may use.
type Most int

// Begin returns how many this process may use. It is called before this process starts
// another, to which its own environment is not handed on.
func Begin() Most {
	if _, set := os.LookupEnv(ours); set {
		os.Unsetenv(ours)
		os.Unsetenv(variable)
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
