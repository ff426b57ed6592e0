package processors

import (
	"os"
	"runtime"
	"strings"
	"testing"
)

// TestUse: a process begins with one processor, may use more when it must, as far as there
// are any and as far as somebody has allowed, and those that it starts do not begin with one.
func TestUse(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	all := runtime.NumCPU()
	for _, tt := range []struct {
		name      string
		set       string // "": it is not
		use, want int
	}{
		{"nothing is set", "", 2, min(2, all)},
		{"containerd's", "2", 1, 1},
		{"all of those that are allowed", "2", 2, 2},
		{"no more than are allowed", "1", 2, 1},
		{"what the runtime does not understand either", "many", 2, min(2, all)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set(t, variable, tt.set)
			set(t, ours, "")
			for _, kv := range Environ() {
				if name, value, _ := strings.Cut(kv, "="); name == variable || name == ours {
					t.Setenv(name, value)
				}
			}
			if n := os.Getenv(variable); n != "1" {
				t.Errorf("it begins with %s=%q", variable, n)
			}
			runtime.GOMAXPROCS(1)
			Begin().Use(tt.use)
			if got := runtime.GOMAXPROCS(0); got != tt.want {
				t.Errorf("%d processors, want %d", got, tt.want)
			}
			if value, is := os.LookupEnv(variable); value != tt.set || is != (tt.set != "") {
				t.Errorf("%s=%q is handed on, %t", variable, value, is)
			}
			if value, is := os.LookupEnv(ours); is {
				t.Errorf("%s=%q is handed on", ours, value)
			}
		})
	}
}

// set sets a variable, or unsets it, for the length of a test.
func set(t *testing.T, name, value string) {
	t.Helper()
	t.Setenv(name, value) // restored at the end
	if value == "" {
		os.Unsetenv(name)
	}
}

// TestUseOfSuccessor: a process that somebody else starts keeps to what is set.
func TestUseOfSuccessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	set(t, variable, "2")
	set(t, ours, "")
	runtime.GOMAXPROCS(3)
	if Begin().Use(2); runtime.GOMAXPROCS(0) != 2 || os.Getenv(variable) != "2" {
		t.Errorf("%d processors of 3, %s=%s", runtime.GOMAXPROCS(0), variable, os.Getenv(variable))
	}
}
