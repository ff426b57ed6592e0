package expected

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/middleware"
)

// handedOver returns what another process makes of what this one keeps.
func handedOver(l *Lives) *Lives {
	text, err := json.Marshal(l)
	if err != nil {
		panic(err)
	}
	next := newLives(l.verbs, l.rules)
	if err := json.Unmarshal(text, next); err != nil {
		panic(err)
	}
	return next
}

// play plays calls, one a word: "Create" succeeds, "Create!" fails with NOT_FOUND,
// "Create!13" with another code, "Kill!closed" gets no answer since the connection ends,
// "Delete?" has none yet; "Kill/e" is about exec e.
// It returns those failures that are expected. Whoever follows the calls hands over to
// another process again and again.
func play(l *Lives, script string) (expected []string) {
	at := time.Unix(0, 0)
	for _, word := range strings.Fields(script) {
		at = at.Add(time.Second)
		method, outcome := word, ""
		if i := strings.IndexAny(word, "!?"); i >= 0 {
			method, outcome = word[:i], word[i:]
		}
		method, exec, _ := strings.Cut(method, "/")
		c := &middleware.Call{Method: method, ContainerID: "c", ExecID: exec, Start: at, End: at.Add(time.Millisecond)}
		l.Forwarded(c)
		l = handedOver(l)
		if outcome == "?" {
			continue
		}
		switch outcome {
		case "":
		case "!":
			c.Code = notFound
		case "!closed":
			c.Closed = true
		default:
			fmt.Sscan(outcome[1:], &c.Code)
		}
		if outcome != "" && l.Expected(c) {
			expected = append(expected, word)
		}
		if c.Closed {
			continue
		}
		l.Answered(c)
		l = handedOver(l)
		l.Forwarded(c) // which may come late
	}
	return expected
}

// TestTasks has lives of containers as containerd and its clients lead them, and what of
// them is no failure.
func TestTasks(t *testing.T) {
	for name, tt := range map[string]struct{ script, want string }{
		"asked before it is there":       {"State! Stats! State!2 Create State Start", "State! Stats! State!2"},
		"asked while it is there":        {"Create State! Stats! Pids! Start State! Stats!2 Connect!", ""},
		"killed while it runs":           {"Create Start Kill! Kill!2 Kill!13", ""},
		"killed before it is there":      {"Kill!", ""},
		"killed when it has ended":       {"Create Start Wait Kill! Kill!2", "Kill! Kill!2"},
		"killed for no permission":       {"Create Start Wait Kill!7", ""},
		"killed while it is deleted":     {"Create Start Delete? Kill! Wait!", "Kill! Wait!"},
		"asked while it is deleted":      {"Create Start Wait Delete? State! Wait! State!2", "State! Wait!"},
		"not deleted after all":          {"Create Start Delete!2 Kill! Wait!", ""},
		"deleted at last":                {"Create Start Delete!2 Delete Kill!", "Kill!"},
		"deleted twice":                  {"Create Start Delete Delete! State! Wait!", "Delete! State! Wait!"},
		"deletion that fails":            {"Create Start Wait Delete! Delete!2", ""},
		"its output when it has ended":   {"Create Start CloseIO! Wait CloseIO! ResizePty!2", "CloseIO! ResizePty!2"},
		"statistics of what has ended":   {"Create Start Wait Stats!2 Stats!13", "Stats!2 Stats!13"},
		"state of what has ended":        {"Create Start Wait State!2 State! Pids! Wait!", ""},
		"exec that has ended":            {"Create Start Exec/e Start/e Kill/e! Wait/e Kill/e! Delete/e State/e!", "Kill/e! State/e!"},
		"exec that is not there":         {"Create Start State/none! Kill/none!", ""},
		"exec whose container has ended": {"Create Start Exec/e Wait Kill/e! State/e!", "Kill/e!"},
		"another exec":                   {"Create Start Exec/e Exec/f Wait/e Kill/f!", ""},
		"start and create that fail":     {"Create! Create!2 Create Start! Start!2 Exec/e! Start/e!", ""},
		"a second life of the id":        {"Create Start Wait Delete State! Create State! Kill! Wait Kill!", "State! Kill!"},
		"not created":                    {"Create!2 State! Kill!", "State!"},
		"connection ended too early":     {"State!closed Create!closed Create Start Kill!closed Wait Kill!closed Delete? Kill!closed Delete!closed", ""},
		"connection ended with the last": {"Create Start Wait Delete Kill!closed State!closed Delete!closed Start!closed", "Kill!closed State!closed Delete!closed"},
		"what nobody knows":              {"Create Start Wait Frob! Update! Pause! Checkpoint!", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(play(OfTasks(), tt.script), " "); got != tt.want {
				t.Errorf("of %s\nexpected %q, want %q", tt.script, got, tt.want)
			}
		})
	}
}

// TestAgent is the same for what Kata's runtimes ask the agent.
func TestAgent(t *testing.T) {
	for name, tt := range map[string]struct{ script, want string }{
		"output at the end":         {"CreateContainer StartContainer WaitProcess? ReadStdout! WaitProcess ReadStderr! ReadStdout!13", "ReadStdout! ReadStderr! ReadStdout!13"},
		"output that nobody awaits": {"CreateContainer StartContainer ReadStdout! ReadStdout!13", ""},
		"output that fails":         {"CreateContainer StartContainer WaitProcess? ReadStdout!13", ""},
		"signal to what runs":       {"CreateContainer StartContainer WaitProcess? SignalProcess! SignalProcess!13", ""},
		"signal to what has ended":  {"CreateContainer StartContainer WaitProcess SignalProcess! SignalProcess!3", "SignalProcess! SignalProcess!3"},
		"exec":                      {"CreateContainer ExecProcess/e TtyWinResize/e! WaitProcess/e TtyWinResize/e! CloseStdin/e!13 SignalProcess!", "TtyWinResize/e! CloseStdin/e!13"},
		"statistics":                {"CreateContainer StatsContainer! WaitProcess StatsContainer!3", "StatsContainer!3"},
		"removed":                   {"CreateContainer RemoveContainer! RemoveContainer RemoveContainer!3 StatsContainer!3", "RemoveContainer!3 StatsContainer!3"},
		"connection ended":          {"CreateContainer StatsContainer!closed WaitProcess SignalProcess!closed RemoveContainer StatsContainer!closed ReadStdout!closed CreateContainer!closed", "StatsContainer!closed ReadStdout!closed"},
		"failures":                  {"CreateContainer! CreateContainer StartContainer! ExecProcess/e!13 UpdateContainer! CopyFile!", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(play(OfAgent(), tt.script), " "); got != tt.want {
				t.Errorf("of %s\nexpected %q, want %q", tt.script, got, tt.want)
			}
		})
	}
}

// TestBounds: more containers and execs than are remembered excuse nothing, and those
// that are gone make room.
func TestBounds(t *testing.T) {
	l := OfTasks()
	call := func(method, id, exec string, code middleware.Code) *middleware.Call {
		c := &middleware.Call{Method: method, ContainerID: id, ExecID: exec, Code: code}
		l.Answered(c)
		return c
	}
	for i := range maxContainers + 10 {
		call("Create", fmt.Sprint(i), "", 0)
	}
	if l.Expected(call("State", fmt.Sprint(maxContainers+5), "", notFound)) || len(l.containers) != maxContainers {
		t.Error("a container that is not remembered is taken for one that is not there")
	}
	call("Delete", "7", "", 0)
	call("Create", "new", "", 0)
	if l.containers["new"] == nil || l.containers["7"] != nil {
		t.Error("a container that is gone makes no room")
	}
	for i := range maxExecs + 10 {
		call("Exec", "new", fmt.Sprint(i), 0)
	}
	if n := len(l.containers["new"].Execs); n != maxExecs {
		t.Errorf("%d execs", n)
	}
	call("Delete", "new", "7", 0)
	call("Exec", "new", "e", 0)
	if l.containers["new"].Execs["e"] == nil {
		t.Error("an exec that is gone makes no room")
	}
}

func TestDelete(t *testing.T) {
	for _, tt := range []struct {
		inner   string
		status  int
		deleted bool
		want    bool
	}{
		{"/opt/kata/bin/containerd-shim-kata-v2", 1, true, true},
		{"/opt/kata/bin/containerd-shim-kata-v2", 1, false, false},
		{"/opt/kata/bin/containerd-shim-kata-v2", 2, true, false},
		{"/usr/bin/containerd-shim-runc-v2", 1, true, false},
	} {
		if got := Delete(tt.inner, tt.status, tt.deleted); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
