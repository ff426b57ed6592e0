package main

import (
	"errors"
	"testing"
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
		{nil, exitOK},
		{[]*relayStatus{well}, exitOK},
		{[]*relayStatus{gone}, exitNothing},
		{[]*relayStatus{gone, gone}, exitNothing},
		{[]*relayStatus{gone, well}, exitFailure},
		{[]*relayStatus{gone, wrong}, exitFailure},
		{[]*relayStatus{wrong}, exitFailure},
	} {
		err := failures(tt.relays)
		code := exitOK
		var coded *codedError
		if errors.As(err, &coded) {
			code = coded.code
		} else if err != nil {
			code = exitFailure
		}
		if code != tt.want {
			t.Errorf("%d relays: exit code %d, want %d: %v", len(tt.relays), code, tt.want, err)
		}
	}
}
