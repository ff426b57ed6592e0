package traced_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// stoppable sleeps until SIGTERM, so that a stop takes no grace period.
var stoppable = []string{"sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 1000 & wait $!; done"}

// scenarios are what users do. Each leaves nothing behind.
var scenarios = []struct {
	name string
	play func(s *session)
}{
	{"ctr run", func(s *session) {
		s.hear([]string{"out", "err"}, "run", "--rm", "--runtime", s.rt.Shim(), image.Busybox, "c0", "sh", "-c", "echo out; echo err >&2"+rig.Hear)
		s.run("--rm", image.Busybox, "c3", "sh", "-c", "exit 3")
		s.run("--rm", image.Busybox, "killed", "sh", "-c", "kill -9 $$")
		s.hear([]string{"hi", "/tmp"}, "run", "--runtime", s.rt.Shim(), "--rm", "--env", "GREETING=hi", "--cwd", "/tmp", image.Busybox, "env", "sh", "-c", "echo $GREETING; pwd"+rig.Hear)
		s.talk(rig.Talk{Say: "one\ntwo\n", Hear: []string{"two"}}, "ctr", "run", "--rm", "--runtime", s.rt.Shim(), image.Busybox, "stdin", "sh", "-c", "head -n 2"+rig.Hear)
	}},
	{"ctr tasks", func(s *session) {
		s.run("--detach", image.Busybox, "c1", "sleep", "1000")
		s.ctr("tasks", "list")
		s.hear([]string{"out", "err"}, "tasks", "exec", "--exec-id", "e0", "c1", "sh", "-c", "echo out; echo err >&2"+rig.Hear+"; exit 5")
		s.talk(rig.Talk{Say: "told\n", Hear: []string{"told"}}, "ctr", "tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "head -n 1"+rig.Hear)
		s.ctr("tasks", "exec", "--exec-id", "e2", "c1", "no-such-program")
		s.ctr("tasks", "exec", "--exec-id", "e3", "c1", "sh", "-c", "kill -TERM $$")
		s.ctr("tasks", "pause", "c1")
		s.ctr("tasks", "list")
		s.ctr("tasks", "resume", "c1")
		s.ctr("tasks", "delete", "c1") // still running
		s.ctr("tasks", "kill", "--signal", "SIGKILL", "--exec-id", "none", "c1")
		s.ctr("tasks", "kill", "--signal", "SIGKILL", "c1")
		s.eventually("STOPPED", s.in.Rig.Ctr, "tasks", "list")
		s.ctr("tasks", "exec", "--exec-id", "e4", "c1", "true")
		s.ctr("tasks", "delete", "c1")
		s.ctr("tasks", "list")
		s.ctr("containers", "delete", "c1")
	}},
	{"signals", func(s *session) {
		const ready = "trap 'exit 42' USR1; trap : TERM; touch /ready; while :; do sleep 0.05; done"
		for _, signal := range []string{"SIGTERM", "SIGUSR1", "SIGKILL"} {
			s.run("--detach", image.Busybox, signal, "sh", "-c", ready)
			until(s.T, "its traps", func() bool {
				return s.in.Rig.Ctr("tasks", "exec", "--exec-id", "ready", signal, "ls", "/ready").Code == 0
			})
			s.ctr("tasks", "kill", "--signal", signal, signal)
			if signal == "SIGTERM" {
				s.eventually("RUNNING", s.in.Rig.Ctr, "tasks", "list")
				s.ctr("tasks", "kill", "--signal", "SIGKILL", signal)
			}
			s.eventually("STOPPED", s.in.Rig.Ctr, "tasks", "list")
			s.ctr("tasks", "delete", signal)
			s.ctr("containers", "delete", signal)
		}
	}},
	{"failing create", func(s *session) {
		s.run("--rm", image.Busybox, "missing", "no-such-program")
		s.run("--rm", "--cwd", "/dev/null", image.Busybox, "cwd", "true")
		s.run("--rm", "--mount", "type=bind,src=/no/such,dst=/mnt,options=rbind", image.Busybox, "mount", "true")
		pod := s.pod("failing")
		id, err := pod.Create(rig.Container{Name: "missing", Command: []string{"no-such-program"}})
		check(s.T, err)
		s.ids = append(s.ids, id, "<container missing>")
		s.crictl("start", id)
		s.crictl("inspect", "--output", "go-template", "--template", status, id)
		s.crictl("stopp", pod.ID)
		s.crictl("rmp", pod.ID)
	}},
	{"out of memory", func(s *session) {
		hog := []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"}
		// ctr does not print dd's words reliably before the kill; the status says it.
		res := s.in.Rig.Ctr(append([]string{"run", "--rm", "--runtime", s.rt.Shim(), "--memory-limit", "16777216", image.Busybox, "hog"}, hog...)...)
		s.saw(rig.Result{Args: []string{"hog"}, Code: res.Code})

		// containerd may learn of the exit before it learns why, and then never says it. So
		// the hog is not the first process, which ends when containerd knows of its end. It
		// begins when the shim, which has answered, watches for it.
		pod := s.pod("oom")
		script := "trap 'exit 137' TERM; until [ -e /go ]; do sleep 0.1; done; " + strings.Join(hog, " ") + "; sleep 1000 & wait"
		res = s.criSpec(pod, "oom", map[string]any{
			"metadata": map[string]any{"name": "hog"},
			"image":    map[string]any{"image": image.Busybox},
			"command":  []string{"sh", "-c", script},
			"log_path": "hog.log",
			"linux":    map[string]any{"resources": map[string]any{"memory_limit_in_bytes": 16 << 20}},
		})
		check(s.T, res.Check())
		id := res.Out()
		inspect := func() rig.Result {
			return s.in.Rig.Crictl("inspect", "--output", "go-template", "--template", status, id)
		}
		check(s.T, s.in.Rig.Crictl("start", id).Check())
		check(s.T, s.in.Rig.Crictl("exec", "--sync", id, "touch", "/go").Check())
		until(s.T, "containerd to know that "+id+" ran out of memory", func() bool { return strings.Contains(inspect().Stdout, "OOMKilled") })
		check(s.T, s.in.Rig.Crictl("stop", id).Check())
		last := inspect()
		s.saw(rig.Result{Args: []string{"inspect hog"}, Stdout: last.Stdout, Code: last.Code})
		check(s.T, pod.Remove())
	}},
	{"nerdctl", func(s *session) {
		options := []string{"--runtime", s.nerdctl, "--net", "none", "--hostname", "box"}
		run := func(args ...string) rig.Result {
			return s.nerd(append(append([]string{"run"}, options...), args...)...)
		}
		say := func(with rig.Talk, script string) {
			s.talk(with, "nerdctl", slices.Concat([]string{"run"}, options, []string{"-i", "--rm", image.Busybox, "sh", "-c", script})...)
		}
		say(rig.Talk{Hear: []string{"hi"}}, "echo hi"+rig.Hear)
		run("--rm", image.Busybox, "sh", "-c", "exit 3")
		run("--rm", image.Busybox, "sh", "-c", "kill -9 $$")
		run("--rm", image.Busybox, "no-such-program")
		say(rig.Talk{Say: "told\n", Hear: []string{"told"}}, "head -n 1"+rig.Hear)
		run(append([]string{"--detach", "--name", "n1", image.Busybox}, stoppable...)...)
		s.talk(rig.Talk{Hear: []string{"out", "err"}}, "nerdctl", "exec", "-i", "n1", "sh", "-c", "echo out; echo err >&2"+rig.Hear+"; exit 4")
		s.eventually("up", s.in.Rig.Nerdctl, "logs", "n1")
		s.nerd("ps", "--all")
		s.nerd("inspect", "n1")
		s.nerd("stop", "n1")
		s.nerd("ps", "--all")
		s.nerd("inspect", "--format", "{{json .State.ExitCode}} {{json .State.Status}}", "n1")
		s.nerd("start", "n1")
		s.nerd("kill", "n1")
		s.nerd("rm", "--force", "n1")
		s.nerd("ps", "--all")
	}},
	// runc's options, which nerdctl gives to runtime types that begin "io.containerd.runc.".
	{"nerdctl options", func(s *session) {
		dir := s.in.Rig.Dir + "/shared"
		check(s.T, os.MkdirAll(dir, 0o755))
		with := []string{"--runtime", s.nerdctl, "--net", "none"}
		run := func(args ...string) rig.Result { return s.nerd(append(append([]string{"run"}, with...), args...)...) }
		run("--rm", "--volume", dir+":/mnt:rro", image.Busybox, "touch", "/mnt/file")
		// Without systemd the option shows itself by runc's refusal.
		s.nerd(slices.Concat([]string{"--cgroup-manager", "systemd", "run", "--name", "slice"}, with, []string{image.Busybox, "true"})...)
		s.runtimeOptions("slice")
		s.nerd("rm", "--force", "slice")
	}},
	{"CRI", func(s *session) {
		pod := s.pod("p")
		id := s.container(pod, rig.Container{Name: "c", Command: stoppable})
		s.crictl("exec", id, "sh", "-c", "echo out; exit 4")
		s.crictl("exec", "--sync", id, "sh", "-c", "echo out; echo err >&2; exit 4")
		s.crictl("exec", "--sync", "--timeout", "1", id, "sleep", "1000")
		s.crictl("exec", "--sync", id, "no-such-program")
		s.feed("in\n", "crictl", "--config="+s.in.Rig.Dir+"/crictl.yaml", "--runtime-endpoint=unix://"+s.in.Rig.Address(), "exec", "--interactive", id, "head", "-n", "1")
		s.crictl("pods")
		s.crictl("ps", "--all")
		s.crictl("inspect", id)
		s.crictl("inspectp", pod.ID)
		s.shape("stats", "--output", "json", id)
		s.shape("statsp", "--output", "json", pod.ID)
		s.crictl("update", "--cpu-share", "512", id)
		s.crictl("logs", id)
		s.crictl("rm", id) // still running
		s.crictl("stop", id)
		s.crictl("inspect", "--output", "go-template", "--template", status, id)
		s.crictl("rm", id)
		s.crictl("stopp", pod.ID)
		s.crictl("inspectp", "--output", "go-template", "--template", "{{.status.state}}", pod.ID)
		s.crictl("rmp", pod.ID)
		s.crictl("pods")
	}},
	{"CRI exits", func(s *session) {
		pod := s.pod("exits")
		for _, c := range []rig.Container{
			{Name: "zero", Command: []string{"true"}},
			{Name: "nine", Command: []string{"sh", "-c", "exit 9"}},
			{Name: "killed", Command: []string{"sh", "-c", "kill -9 $$"}},
			{Name: "terminated", Command: []string{"sh", "-c", "trap 'exit 7' USR1; kill -USR1 $$"}},
		} {
			id := s.container(pod, c)
			s.eventually("EXITED", s.in.Rig.Crictl, "inspect", "--output", "go-template", "--template", status, id)
			s.crictl("rm", id)
		}
		check(s.T, pod.Remove())
	}},
}

// status is what a kubelet goes by.
const status = "{{.status.state}} {{.status.exitCode}} {{.status.reason}} {{.status.message}}\n"

// shape writes down the keys of what crictl answers: the values are measurements.
func (s *session) shape(args ...string) {
	res := s.in.Rig.Crictl(args...)
	var v any
	if err := json.Unmarshal([]byte(res.Stdout), &v); err != nil {
		s.Errorf("%v: %v in %q", args, err, res.Stdout)
	}
	var keys []string
	var walk func(prefix string, v any)
	walk = func(prefix string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(prefix+"."+k, v[k])
			}
		case []any:
			for i, e := range v {
				walk(fmt.Sprintf("%s[%d]", prefix, i), e)
			}
		default:
			keys = append(keys, prefix)
		}
	}
	walk("", v)
	// There from containerd's second measurement on, which comes when it comes.
	keys = slices.DeleteFunc(keys, func(k string) bool { return strings.Contains(k, "usageNanoCores") })
	res.Stdout = strings.Join(keys, "\n") + "\n"
	s.saw(res)
}

// A user sees the same whether runc is wrapped or not.
func TestSameAsBare(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		for _, sc := range scenarios {
			t.Run(sc.name, func(t *testing.T) {
				settle(t, in)
				before := roots(t, in)
				bare := newSession(t, in, false)
				sc.play(bare)
				if n := roots(t, in); n != before {
					t.Errorf("bare runc has been traced: %d sandboxes", n-before)
				}
				wrapped := newSession(t, in, true)
				sc.play(wrapped)
				if d := diff(bare.transcript(), wrapped.transcript()); d != "" {
					t.Errorf("wrapped differs from bare: %s", d)
				}
				settle(t, in)
				if roots(t, in) == before {
					t.Error("wrapped runc has not been traced")
				}
			})
		}
	})
}

// roots counts the sandboxes in the journal.
func roots(t *testing.T, in *traced.Install) int {
	t.Helper()
	return len(otlprecv.Named(spans(t, in), "sandbox start"))
}

func spans(t *testing.T, in *traced.Install) []otlprecv.Span {
	t.Helper()
	all, err := in.Spans()
	check(t, err)
	return all
}
