package process

import (
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/shim/standby"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// TestStartOf: what a recording says of the sandbox's start, by which the journal knows
// what to keep longest.
func TestStartOf(t *testing.T) {
	failed := &standby.Recording{Failure: "no such shim", State: state.State{Started: t0}, Timing: state.Timing{Start: t0, End: t0.Add(2 * time.Second)}}
	ended := &standby.Recording{Timing: state.Timing{Start: t0.Add(9 * time.Second)}}
	for name, tt := range map[string]struct {
		r       *standby.Recording
		left    *state.State
		took    time.Duration
		failure string
		is      bool
	}{
		"a start that failed":              {failed, nil, 2 * time.Second, "no such shim", true},
		"a delete":                         {ended, nil, 0, "", false},
		"a relay that had told it":         {ended, &state.State{Started: t0, RootEnd: t0.Add(time.Second), RootEnded: true}, 0, "", false},
		"a window":                         {ended, &state.State{Started: t0, Dynamic: true}, 0, "", false},
		"a relay that died after":          {ended, &state.State{Started: t0, RootEnd: t0.Add(7 * time.Second)}, 7 * time.Second, "", true},
		"a relay that died while it began": {ended, &state.State{Started: t0}, 9 * time.Second, "the relay died before the first task was started", true},
	} {
		took, failure, is := startOf(tt.r, tt.left)
		if took != tt.took || failure != tt.failure || is != tt.is {
			t.Errorf("%s: %v, %q, %v", name, took, failure, is)
		}
	}
}

// TestRecordersAreFew, however many deletes there are on a disk that hangs.
func TestRecordersAreFew(t *testing.T) {
	state := t.TempDir()
	releases := make(chan func(), 2*maxRecorders)
	for range maxRecorders {
		free, err := recorderSlot(state, 0)
		if err != nil {
			t.Fatal(err)
		}
		releases <- free
	}
	if _, err := recorderSlot(state, 0); err == nil {
		t.Error("one more records")
	}
	(<-releases)()
	free, err := recorderSlot(state, 0)
	if err != nil {
		t.Fatal(err)
	}
	free()
	for range maxRecorders - 1 {
		(<-releases)()
	}
}
