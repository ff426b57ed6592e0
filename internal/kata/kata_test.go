package kata_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// word is a word of a method's name: "OOM", "Event", "CPU", "Mem", "virtiofs".
var word = regexp.MustCompile(`[A-Z]+[a-z]*`)

// TestRequests: each has its own name, the span that the agent's handler of that name
// opens, and existing calls as causes.
func TestRequests(t *testing.T) {
	joined := map[string]string{"OOMEvent": "oom_event", "ARPNeighbors": "arp_neighbors", "CPUMem": "cpu_mem", "IPTables": "ip_tables"}
	seen := map[string]bool{}
	for _, r := range kata.Requests {
		var words []string
		for _, w := range word.FindAllString(r.Name, -1) {
			if two := joined[w]; two != "" {
				w = two
			}
			words = append(words, strings.ToLower(w))
		}
		if span := strings.Join(words, "_"); span != r.Span {
			t.Errorf("%s has the span %s, want %s", r.Name, r.Span, span)
		}
		if seen[r.Name] {
			t.Errorf("%s is there twice", r.Name)
		}
		seen[r.Name] = true
		for _, method := range r.CausedBy {
			if !slices.ContainsFunc(kata.Calls[:], func(c kata.Call) bool { return c.Method == method && !c.Sandbox }) {
				t.Errorf("%s is caused by %s, which no call is", r.Name, method)
			}
		}
		if got := kata.RequestNamed(r.Name); got == nil || got.Span != r.Span {
			t.Errorf("%s is found as %v", r.Name, got)
		}
		if (r.EndCode != 0 || r.EndText != "") && !r.Waits || r.Ordered && len(r.CausedBy) < 2 || r.ExecID != 0 && r.ContainerID == 0 {
			t.Errorf("%s: %+v", r.Name, r)
		}
	}
	if r := kata.RequestNamed("Create"); r != nil {
		t.Errorf("Create is %v", r)
	}
}

// TestCalls: each has its own method, and an existing one of the task service.
func TestCalls(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range kata.Calls {
		if seen[c.Method] {
			t.Errorf("%s is there twice", c.Method)
		}
		seen[c.Method] = true
		as := kata.TaskMethod(c.Method)
		if c.As != "" && (as != c.As || !c.Sandbox || kata.TaskMethod(as) != as) || c.As == "" && as != c.Method {
			t.Errorf("%s is %s in the task service, want %q", c.Method, as, c.As)
		}
		if !c.Sandbox && !seen[as] {
			t.Errorf("%s is %s, which no call is", c.Method, as)
		}
	}
}

func TestWaits(t *testing.T) {
	for name, want := range map[string]bool{
		"Wait": true, "WaitSandbox": true, "WaitProcess": true, "ReadStdout": true, "ReadStderr": true, "WriteStdin": true, "GetOOMEvent": true,
		"Create": false, "CreateContainer": false, "Check": false, "unknown": false, "": false,
	} {
		if got := kata.Waits(name); got != want {
			t.Errorf("%q waits: %v", name, got)
		}
	}
}

func TestParentSpan(t *testing.T) {
	for child, want := range map[string]string{
		"do_create_container": "create_container", "process": "watch_uevents", "start_sandbox": "root-span", "root-span": "", "": "",
	} {
		if got := kata.ParentSpan(child); got != want {
			t.Errorf("%q is below %q, want %q", child, got, want)
		}
	}
}

func TestExecID(t *testing.T) {
	for _, tt := range []struct{ container, exec, want string }{{"c", "c", ""}, {"c", "e", "e"}, {"c", "", ""}} {
		if got := kata.ExecID(tt.container, tt.exec); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

func TestIsShim(t *testing.T) {
	for inner, want := range map[string]bool{
		"kata-qemu": true, "/opt/kata/bin/containerd-shim-kata-v2": true, "/opt/kata/bin/containerd-shim-runc-v2": false, "runc": false, "": false,
	} {
		if got := kata.IsShim(inner); got != want {
			t.Errorf("%q is Kata's: %v", inner, got)
		}
	}
}

// TestLookups must not allocate: they are made for each span and each call.
func TestLookups(t *testing.T) {
	if n := testing.AllocsPerRun(10, func() {
		kata.RequestNamed("Version")
		kata.TaskMethod("ShutdownSandbox")
		kata.ParentSpan("do_create_container")
		kata.Waits("unknown")
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
