package processors

import (
	"os"
	"runtime"
	"slices"
	"testing"
)

// TestUse: a process that begins with one processor may use more when it must, as far as
// there are any, and those that it starts do not begin with one.
func TestUse(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	t.Setenv(variable, "") // restored at the end
	os.Unsetenv(variable)
	if env := Environ(); !slices.Contains(env, "GOMAXPROCS=1") || !slices.Contains(env, ours+"=1") {
		t.Errorf("the environment is %q", env)
	}
	t.Setenv(variable, "1")
	t.Setenv(ours, "1")
	runtime.GOMAXPROCS(1)
	Begin().Use(2)
	if got, want := runtime.GOMAXPROCS(0), min(2, runtime.NumCPU()); got != want {
		t.Errorf("%d processors, want %d", got, want)
	}
	for _, name := range []string{variable, ours} {
		if value, set := os.LookupEnv(name); set {
			t.Errorf("%s=%s is handed on", name, value)
		}
	}
}

// TestUseByOthers: what somebody has set is a limit, too, and stays.
func TestUseByOthers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	t.Setenv(variable, "1")
	if slices.Contains(Environ(), ours+"=1") {
		t.Error("it is said to be ours")
	}
	runtime.GOMAXPROCS(1)
	if Begin().Use(2); runtime.GOMAXPROCS(0) != 1 || os.Getenv(variable) != "1" {
		t.Errorf("%d processors, %s=%s", runtime.GOMAXPROCS(0), variable, os.Getenv(variable))
	}
	runtime.GOMAXPROCS(3)
	if Begin().Use(2); runtime.GOMAXPROCS(0) != 2 {
		t.Errorf("%d processors of 3, not 2", runtime.GOMAXPROCS(0))
	}
}
