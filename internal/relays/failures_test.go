package relays

import (
	"errors"
	"testing"

	"github.com/shimtrace/shimtrace/internal/console"
)

// TestFailures: that relays have ended since they were found is no failure, unlike
// other errors.
func TestFailures(t *testing.T) {
	gone := &status{ended: true, err: errors.New("connection refused")}
	wrong := &status{err: errors.New("no answer")}
	well := &status{}
	for _, tt := range []struct {
		relays []*status
		want   int
	}{
		{nil, console.OK},
		{[]*status{well}, console.OK},
		{[]*status{gone}, console.Nothing},
		{[]*status{gone, gone}, console.Nothing},
		{[]*status{gone, well}, console.Failure},
		{[]*status{gone, wrong}, console.Failure},
		{[]*status{wrong}, console.Failure},
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
