package explain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
)

func TestHead(t *testing.T) {
	for pod, want := range map[string][]string{
		storytest.GoPod: {
			"critical path waitVM 1.52s (VMM) › connect 12.8s (guest kernel) › do_create_container 1.83s (agent) › no call 3.56s (caller) › do_create_container 1.79s (agent); 2.30s in shorter pieces",
			"self time guest kernel 12.8s · agent 4.24s · caller 3.88s · VMM 1.52s · runtime 1.31s · network 54.6ms",
		},
		storytest.RustPod: {
			"critical path sb: start 1.76s (VMM) › start 10.6s (guest kernel) › handler_task_request 5.09s (runtime) › no call 2.19s (caller) › handler_task_request 5.02s (runtime); 1.87s in shorter pieces",
			"self time runtime 10.8s · guest kernel 10.6s · caller 2.30s · VMM 1.76s · agent 1.09s",
		},
	} {
		if got := of(t, storytest.Captured(pod)).Head(); !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", pod, got, want)
		}
	}
}

// TestHeadNamesTheLongest: of many legs the longest have their names, whenever they were,
// and what is left is less than each of them.
func TestHeadNamesTheLongest(t *testing.T) {
	s := &storytest.Script{}
	shim, agent := storytest.Resource("containerd-shim-kata-v2"), storytest.Resource(names.AgentScope)
	s.Span(shim, "s", "root", "", names.SandboxStart, 0, 1000*ms)
	s.Span(shim, "s", "start", "root", storytest.Task+"Start", 0, 1000*ms)
	at := time.Duration(0)
	for i, length := range []time.Duration{40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 350, 250} {
		s.Span(agent, "s", fmt.Sprint(i), "start", fmt.Sprintf("step %d %s", i, strings.Repeat("x", 100)), at, length*ms)
		at += length * ms
	}
	got := of(t, storytest.Message(s.Spans)).Head()[0]
	if n := strings.Count(got, "› "); n != 6 || !strings.Contains(got, "step 10") || !strings.Contains(got, "step 11") || !strings.HasSuffix(got, "200ms in shorter pieces") {
		t.Error(got)
	}
	if n := len(got); n > 500 {
		t.Errorf("%d bytes: %s", n, got)
	}
}

// TestPathCoversStart: the path has no hole and no overlap, and its parts add up.
func TestPathCoversStart(t *testing.T) {
	for _, pod := range []string{storytest.GoPod, storytest.RustPod} {
		s := of(t, storytest.Captured(pod)).Start
		at := s.From
		for _, g := range s.Path {
			if g.From != at || g.To <= g.From {
				t.Fatalf("%s: a segment from %d to %d after %d", pod, g.From, g.To, at)
			}
			at = g.To
		}
		var sum time.Duration
		for _, l := range s.ByLayer() {
			sum += l.Self
		}
		if at != s.To || sum != s.Length() {
			t.Errorf("%s: the path ends at %d of %d, the layers have %s of %s", pod, at, s.To, sum, s.Length())
		}
	}
}
