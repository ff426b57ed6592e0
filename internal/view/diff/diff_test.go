package diff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
	"github.com/shimtrace/shimtrace/internal/waterfall/treetest"
)

const ms = time.Millisecond

func sideOf(t *testing.T, data []byte, took time.Duration) Side {
	t.Helper()
	s, tree := treetest.Only(t, data)
	side := Side{Story: s, Tree: tree}
	if took > 0 {
		from := uint64(storytest.Epoch.UnixNano())
		side.Start = waterfall.Interval{From: from, To: from + uint64(took)}
	}
	return side
}

// pod is a start; change adds to it or replaces what it would have.
func pod(mount time.Duration, mounts int, change func(*storytest.Script)) []byte {
	s := &storytest.Script{}
	shim, agent := storytest.Resource("containerd-shim-kata-v2"), storytest.Resource(names.AgentScope)
	app := storytest.With(storytest.Attr(names.Container, strings.Repeat("a1", 32)), storytest.Attr(names.ContainerName, "app"))
	s.Span(shim, "s", "root", "", names.SandboxStart, 0, time.Second)
	s.Span(shim, "s", "create", "root", storytest.Task+"Create", 100*ms, 700*ms, app)
	s.Span(agent, "s", "agent", "create", "create_container", 150*ms, 500*ms)
	for i := range mounts {
		s.Span(agent, "s", fmt.Sprint("mount ", i), "agent", "mount", time.Duration(160+i)*ms, mount)
	}
	s.Span(shim, "s", "late", "root", storytest.Task+"Kill", time.Hour, ms)
	change(s)
	return storytest.Message(s.Spans)
}

func TestCompare(t *testing.T) {
	agent := storytest.Resource(names.AgentScope)
	a := pod(ms, 10, func(s *storytest.Script) { s.Span(agent, "s", "gone", "agent", "old hook", 500*ms, 50*ms) })
	b := pod(20*ms, 12, func(s *storytest.Script) {
		s.Span(agent, "s", "new", "create", "a new hook\x1b[2J", 600*ms, 300*ms)
		s.Span(agent, "s", "below", "new", "work", 600*ms, 299*ms)
	})
	d := Compare(sideOf(t, a, time.Second), sideOf(t, b, 2*time.Second))
	d.Layers = layers([]Layer{{"agent", 400 * ms}, {"caller", 10 * ms}}, []Layer{{"agent", 700 * ms}, {"network", 5 * ms}})
	got := make(map[string]string)
	all, _ := d.Spans(0)
	for _, c := range all {
		got[c.Name] = fmt.Sprint(c.Kind(), " ", c.A, " ", c.B, " ", c.CountA, " ", c.CountB, " ", c.Level)
	}
	for name, want := range map[string]string{
		"sandbox start": "same 1s 1s 1 1 1", "Task/Create app": "same 700ms 700ms 1 1 2", "mount": "longer 10ms 240ms 10 12 4",
		"old hook": "gone 50ms 0s 1 0 4", "a new hook␛[2J": "new 0s 300ms 0 1 3", "work": "new 0s 299ms 0 1 4",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if _, ok := got["Task/Kill"]; ok {
		t.Error("what came after the start is compared")
	}

	for _, width := range []int{0, 40, 60, 72, 80, 120, 200} {
		var out bytes.Buffer
		if err := d.Write(&out, Options{Width: width, Location: time.UTC}); err != nil {
			t.Fatal(err)
		}
		if width == 0 {
			width = 80
		}
		for line := range strings.Lines(out.String()) {
			if cells := waterfall.Width(strings.TrimSuffix(line, "\n")); cells > width {
				t.Errorf("%d cells of %d: %q", cells, width, line)
			}
		}
		if strings.ContainsRune(out.String(), '\x1b') {
			t.Error("an escape sequence got through")
		}
		if width != 80 {
			continue
		}
		for _, want := range []string{"+1.00s", "×12, was 10", "new", "gone", "+230ms", "agent"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
	}
	var out bytes.Buffer
	if err := d.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var j diffJSON
	if err := json.Unmarshal(out.Bytes(), &j); err != nil || len(j.Spans) != len(all) || j.B.Took != 2*time.Second {
		t.Errorf("%v: %s", err, out.String())
	}
}

// TestOrder: what is gone stands where it was.
func TestOrder(t *testing.T) {
	list := func(names string) (all []*entry) {
		for _, n := range strings.Fields(names) {
			all = append(all, &entry{name: n})
		}
		return all
	}
	if got := strings.Join(merged(list("x a y b z"), list("b a n")), " "); got != "x b z a y n" {
		t.Error(got)
	}
}

// TestHostile: a chain of spans and a crowd of names cost little.
func TestHostile(t *testing.T) {
	s := &storytest.Script{}
	agent := storytest.Resource(names.AgentScope)
	parent := ""
	for i := range 20_000 {
		s.Span(agent, "s", fmt.Sprint(i), parent, "deeper", 0, ms)
		s.Span(agent, "s", fmt.Sprint("w", i), "0", fmt.Sprint("name ", i), 0, ms)
		parent = fmt.Sprint(i)
	}
	data := storytest.Message(s.Spans)
	side := sideOf(t, data, 0)
	empty := sideOf(t, pod(ms, 1, func(*storytest.Script) {}), 0)
	for _, d := range []*Diff{Compare(side, side), Compare(empty, side)} {
		var out bytes.Buffer
		if err := d.Write(&out, Options{Least: 1}); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteJSON(&out); err != nil {
			t.Fatal(err)
		}
		if out.Len() > 32<<20 {
			t.Errorf("%d bytes", out.Len())
		}
	}
}
