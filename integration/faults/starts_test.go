package faults_test

import (
	"testing"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestStartsAtOnce starts 200 containers at the same time.
func TestStartsAtOnce(t *testing.T) {
	n := 200
	if !faults.All() {
		n = 40
	}
	s := start(t, traced.Options{})
	l := faults.StartAtOnce(t, s.Install, n)
	row := s.finish(l)
	if row.CallsFailed > 0 {
		t.Errorf("%d calls failed", row.CallsFailed)
	}
	if faults.All() {
		reliability.Row(t, reliability.Fault{Area: area, Fault: "200 containers start at the same time, and end at the same time", Load: row})
	}
}
