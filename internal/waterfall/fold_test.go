package waterfall

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/names"
)

// deep is a call of 1 s with 12 quick mounts at the fourth level, of which one failed,
// one has something slow below it, and one a failure two levels below.
func deep() *script {
	s := &script{}
	shim, agent := resourceOf("containerd-shim-kata-v2"), resourceOf(names.AgentScope)
	s.Span(shim, "s", "root", "", names.SandboxStart, 0, time.Second)
	s.Span(shim, "s", "create", "root", task+"Create", 0, time.Second)
	s.Span(agent, "s", "agent", "create", "create_container", 0, time.Second)
	for i := range 12 {
		id := fmt.Sprint("mount ", i)
		s.Span(agent, "s", id, "agent", "mount", time.Duration(50*i)*ms, 2*ms)
		s.Span(agent, "s", id+" a", id, "baremount", time.Duration(50*i)*ms, ms)
	}
	s.Span(agent, "s", "driver", "agent", "driver_types", 900*ms, 5*ms)
	s.Span(agent, "s", "failed", "agent", "umount", 910*ms, ms, wrong("INTERNAL", "busy"))
	s.Span(agent, "s", "slow above", "agent", "prepare", 920*ms, 2*ms)
	s.Span(agent, "s", "slow", "slow above", "wait", 922*ms, 50*ms)
	s.Span(agent, "s", "way 1", "agent", "cgroup", 980*ms, ms)
	s.Span(agent, "s", "way 2", "way 1", "write", 980*ms, ms)
	s.Span(agent, "s", "deep failure", "way 2", "attach", 980*ms, ms, wrong("INTERNAL", "no"))
	return s
}

// TestFold: short and deep spans share one line, but not failures or what is above a
// drawn span.
func TestFold(t *testing.T) {
	out := string(draw(t, deep().Spans, Options{Width: 100}))
	golden(t, "folded.txt", []byte(out))
	for _, want := range []string{"+25 mount, driver_types", " 29.0ms ", "umount", "prepare", "wait", "cgroup", "write", "attach", "+ 25 spans of less than 1 %"} {
		if !strings.Contains(out, want) {
			t.Errorf("the picture lacks %q", want)
		}
	}
	for _, not := range []string{"├ mount", "baremount", "└ driver_types"} {
		if strings.Contains(out, not) {
			t.Errorf("the picture has %q", not)
		}
	}
	all := string(draw(t, deep().Spans, Options{Width: 100, All: true}))
	if got := strings.Count(all, "mount"); got != 12+12+1 || strings.Contains(all, "--all") || strings.Contains(all, "+") {
		t.Errorf("with all, %d mounts are drawn:\n%s", got, all)
	}
}

// TestFoldWidths: folded lines fit, whatever the names are.
func TestFoldWidths(t *testing.T) {
	s := deep()
	for i := range 9 {
		s.Span(resourceOf(names.AgentScope), "s", fmt.Sprint("x", i), "mount 3", strings.Repeat("容", i)+strings.Repeat("long name ", 20), 0, ms)
	}
	for _, width := range []int{40, 41, 60, 80, 120, 200, 500} {
		draw(t, s.Spans, Options{Width: width}) // checks the widths of lines
	}
}

// TestDeepNames: a name at a deep level keeps its last part, whatever the width.
func TestDeepNames(t *testing.T) {
	s := &script{}
	res := resourceOf(names.AgentScope)
	parent := ""
	for i := range 30 {
		id := fmt.Sprint("level ", i)
		s.Span(res, "s", id, parent, fmt.Sprint("some_rather_long_name_of_level_", i), 0, time.Second)
		parent = id
	}
	for _, width := range []int{60, 80, 120, 200} {
		out := string(draw(t, s.Spans, Options{Width: width}))
		for i := range 30 {
			if !strings.Contains(out, fmt.Sprint("level_", i, " ")) {
				t.Errorf("at %d cells, level %d is not to be told from others:\n%s", width, i, out)
				break
			}
		}
	}
}

// TestFoldExpected: polls that found nothing share one line at any level; a single one
// shows its code.
func TestFoldExpected(t *testing.T) {
	s := joined()
	poll := func(i int) {
		s.Span(resourceOf("containerd-shim-kata-v2"), "s", fmt.Sprint("poll ", i), "root", task+"State", time.Duration(10*i)*ms, ms/10, expected("NOT_FOUND", false))
	}
	poll(0)
	if out := string(draw(t, s.Spans, Options{Width: 100})); !strings.Contains(out, "Task/State NOT_FOUND") {
		t.Errorf("the picture:\n%s", out)
	}
	for i := range 20 {
		poll(i)
	}
	if out := string(draw(t, s.Spans, Options{Width: 100})); !strings.Contains(out, "+20 Task/State ") || strings.Contains(out, "NOT_FOUND") {
		t.Errorf("the picture:\n%s", out)
	}
}
