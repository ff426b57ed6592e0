package faults_test

import (
	"testing"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// area is the heading of all rows with a load.
const area = "Under load"

// TestNoFault is what the other rows are to be compared with.
func TestNoFault(t *testing.T) {
	s := start(t, traced.Options{})
	l := faults.Start(t, s.Install, faults.Options{Echo: true})
	work(t, l, 2000)
	row := s.finish(l)
	if row.CallsFailed > 0 {
		t.Errorf("%d calls failed", row.CallsFailed)
	}
	reliability.Row(t, reliability.Fault{Area: area, Fault: "nothing, for comparison", Load: row})
}
