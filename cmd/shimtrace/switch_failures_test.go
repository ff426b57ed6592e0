package main

import (
	"errors"
	"testing"

	"github.com/shimtrace/shimtrace/internal/console"
)

// TestFailures: relays that ended since they were found are not there; another failure
// is one.
func TestFailures(t *testing.T) {
	gone := &relayStatus{ended: true, err: errors.New("connection refused")}
	wrong := &relayStatus{err: errors.New("no answer")}
	well := &relayStatus{}
	for _, tt := range []struct {
		relays []*relayStatus
		want   int
	}{
		{nil, console.OK},
		{[]*relayStatus{well}, console.OK},
		{[]*relayStatus{gone}, console.Nothing},
		{[]*relayStatus{gone, gone}, console.Nothing},
		{[]*relayStatus{gone, well}, console.Failure},
		{[]*relayStatus{gone, wrong}, console.Failure},
		{[]*relayStatus{wrong}, console.Failure},
	} {
		err := failures(tt.relays)
		code := console.OK
		var coded interface{ ExitCode() int }
		if errors.As(err, &coded) {
			code = coded.ExitCode()
		} else if err != nil {
			code = console.Failure
		}
		if code != tt.want {
			t.Errorf("%d relays: exit code %d, want %d: %v", len(tt.relays), code, tt.want, err)
		}
	}
}
