package telemetry

import (
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// TestCause: the context is read in both of its forms, and what is none is said, and
// costs nothing else.
func TestCause(t *testing.T) {
	const (
		id   = "4bf92f3577b34da6a3ce929d0e0e4736"
		span = "00f067aa0ba902b7"
		good = "00-" + id + "-" + span + "-01"
	)
	keys := []string{"tracing.k8s.io/traceparent", "opentelemetry.io/trace-context"}
	for _, tt := range []struct {
		name    string
		first   string
		second  string
		want    string // trace id and flags
		warning string
	}{
		{"none", "", "", "", ""},
		{"a header", good, "", id + "01", ""},
		{"not sampled", good[:len(good)-1] + "0", "", id + "00", ""},
		{"with space around it", " " + good + "\n", "", id + "01", ""},
		{"JSON", "", `{"traceparent": "` + good + `", "tracestate": "a=b", "baggage": "secret=1"}`, id + "01", ""},
		{"the first counts", good, strings.Replace(good, "4b", "5b", 1), id + "01", ""},
		{"a bad first", "<no trace>", good, id + "01", keys[0]},
		{"both bad", "00-0-0-0", "{}", "", keys[0] + "|" + keys[1]},
		{"another JSON", "", `{"traceparent": 5}`, "", keys[1]},
		{"zero", "00-" + strings.Repeat("0", 32) + "-" + span + "-01", "", "", keys[0]},
		{"endless", strings.Repeat("0", 1<<20), "", "", keys[0]},
	} {
		a := state.Annotations{"other": "x"}
		for i, value := range []string{tt.first, tt.second} {
			if value != "" {
				a[keys[i]] = value
			}
		}
		cause, err := Cause(a, keys)
		got := ""
		if cause.IsValid() {
			got = cause.TraceID().String() + cause.TraceFlags().String()
		}
		if got != tt.want || (err != nil) != (tt.warning != "") {
			t.Errorf("%s: %s, %v", tt.name, got, err)
		}
		for key := range strings.SplitSeq(tt.warning, "|") {
			if err != nil && (!strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "no trace")) {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
}

// FuzzCause: whatever a pod's author writes, the outcome is a valid context or a warning.
func FuzzCause(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Add(`{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}`)
	f.Fuzz(func(t *testing.T, value string) {
		cause, err := Cause(state.Annotations{"k": value}, []string{"k"})
		if cause.IsValid() == (err != nil) {
			t.Fatal(cause, err)
		}
	})
}
