package seeded

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// Watch returns a function that returns for how long processes of the machine have waited for a
// resource since Watch was called: for the one that they waited for the longest.
func Watch(t testing.TB) (waited func() time.Duration) {
	t.Helper()
	before := pressure(t)
	return func() (most time.Duration) {
		t.Helper()
		for resource, total := range pressure(t) {
			most = max(most, total-before[resource])
		}
		return most
	}
}

// pressure returns for how long processes of the machine have waited for each resource.
func pressure(t testing.TB) map[string]time.Duration {
	t.Helper()
	waited := make(map[string]time.Duration)
	for _, resource := range []string{"cpu", "io", "memory"} {
		data, err := os.ReadFile("/proc/pressure/" + resource)
		if err != nil {
			continue // the kernel does not count it
		}
		var avg10, avg60, avg300 float64
		var total int64
		if _, err := fmt.Sscanf(string(data), "some avg10=%f avg60=%f avg300=%f total=%d", &avg10, &avg60, &avg300, &total); err != nil {
			t.Fatal(err)
		}
		waited[resource] = time.Duration(total) * time.Microsecond
	}
	return waited
}
