package explain_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
)

// TestHealthyPods: no cause is named on ten pods without a fault. Where the machine
// itself lacked CPUs meanwhile, what that slows down may be.
func TestHealthyPods(t *testing.T) {
	s := start(t, traced.Options{})
	var pods []*pod
	busy := busyMachine(t)
	for i := range 10 {
		p := s.pod(fmt.Sprint("web-", i))
		check(t, p.start(image.Busybox))
		pods = append(pods, p)
	}
	allowed := besides
	if share := busy(); share > 0.2 {
		t.Logf("processes waited for a CPU during %.0f %% of the time", 100*share)
		allowed = also("cni", "own-shim", "mounts", "slow-disk", "shimtrace")
	}
	var all []*explain.Explanation
	for _, p := range pods {
		all = append(all, p.explained())
	}
	t.Logf("%s", all[0])
	seeded.Healthy(t, "ten pods without a fault, by CRI", seeded.Runc, allowed, all)
	check(t, s.Rig.CRI().RemovePods(t.Context()))
}

// busyMachine returns a function that returns the share of the time since in which some
// process of the machine waited for a CPU.
func busyMachine(t *testing.T) func() float64 {
	waited := func() time.Duration {
		data, err := os.ReadFile("/proc/pressure/cpu")
		if err != nil {
			return 0 // the kernel does not count it
		}
		var avg10, avg60, avg300 float64
		var total int64
		if _, err := fmt.Sscanf(string(data), "some avg10=%f avg60=%f avg300=%f total=%d", &avg10, &avg60, &avg300, &total); err != nil {
			t.Fatal(err)
		}
		return time.Duration(total) * time.Microsecond
	}
	before, at := waited(), time.Now()
	return func() float64 { return float64(waited()-before) / float64(time.Since(at)) }
}
