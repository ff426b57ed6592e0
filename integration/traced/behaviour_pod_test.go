package traced_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// A pod has one relay, as it has one shim, and takes it with it.
func TestPodHasOneRelay(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: in.Runtime.Name})
		check(t, err)
		relay := relays(r)
		var ids []string
		for _, name := range []string{"a", "b"} {
			id, err := pod.Run(rig.Container{Name: name})
			check(t, err)
			check(t, r.Crictl("exec", "--sync", id, "true").Check())
			ids = append(ids, id)
		}
		if now := relays(r); len(relay) != 1 || len(now) != 1 || now[0].PID != relay[0].PID {
			t.Errorf("relays %v after the sandbox, %v after its containers; want the same one", relay, now)
		}
		if n := len(inners(r)); n != 1 {
			t.Errorf("%d runc shims for one pod: %v", n, r.Shims())
		}
		until(t, "the relay to have two sockets, a state and a lock", func() bool { return len(relayFiles(t, r)) == 4 })
		check(t, r.Crictl("stop", ids[0]).Check())
		check(t, r.Crictl("rm", ids[0]).Check())
		if len(relays(r)) != 1 {
			t.Error("the relay left with one of two containers")
		}
		check(t, pod.Remove())
		settle(t, in)
	})
}

// Containers whose starts race for the relay of one shim all get it.
func TestRacingStartsShareARelay(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: in.Runtime.Name, HostNetwork: true})
		check(t, err)
		const containers = 4
		var ids []string
		for i := range containers {
			id, err := pod.Create(rig.Container{Name: fmt.Sprint("c", i)})
			check(t, err)
			ids = append(ids, id)
		}
		check(t, together(containers, func(i int) error { return r.Crictl("start", ids[i]).Check() }))
		check(t, together(containers, func(i int) error { return r.Crictl("exec", "--sync", ids[i], "true").Check() }))
		if n := len(relays(r)); n != 1 {
			t.Errorf("%d relays, want 1: %v", n, r.Shims())
		}
		check(t, pod.Remove())
		settle(t, in)
	})
}

func TestManyAtOnce(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		const containers = 20
		check(t, together(containers, func(i int) error {
			want := fmt.Sprint("this is ", i)
			res := in.Rig.CtrHearing([]string{want}, "run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, fmt.Sprint("c", i),
				"sh", "-c", "echo "+want+rig.Hear+"; exit "+strconv.Itoa(i))
			if res.Code != i || res.Out() != want {
				return fmt.Errorf("container %d printed %q: %w", i, res.Out(), res.Check())
			}
			return nil
		}))
		settle(t, in)
		if n := roots(t, in); n != containers {
			t.Errorf("%d sandboxes traced, want %d", n, containers)
		}
	})
}

// together does n things at once.
func together(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// The relay is as hard to hit as a shim: by a signal to a group or to it, by the
// OOM killer, by the end of whoever reads containerd's output.
func TestRelayIsAProcessOfItsOwn(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		run := func(id string, rt rig.Runtime) {
			check(t, r.Ctr("run", "--detach", "--runtime", rt.Shim(), image.Busybox, id, "sleep", "1000").Check())
		}
		run("bare", rig.Runc)
		bare := oomScore(t, inners(r)[0].PID)
		if res := r.Ctr("tasks", "delete", "--force", "bare"); res.Err != nil {
			t.Fatal(res.Err)
		}
		until(t, "the bare shim to end", func() bool { return len(inners(r)) == 0 })

		run("c1", in.Runtime)
		relay, inner := relays(r)[0].PID, inners(r)[0].PID
		if got, want := oomScore(t, relay), oomScore(t, r.Pid())+1; got != want {
			t.Errorf("relay's OOM score is %d, want containerd's and one more: %d", got, want)
		}
		if got := oomScore(t, inner); got != bare {
			t.Errorf("wrapped shim's OOM score is %d, bare %d", got, bare)
		}
		for what, pid := range map[string]int{"relay": relay, "shim": inner} {
			if group, err := unix.Getpgid(pid); err != nil || group != pid {
				t.Errorf("%s %d is in process group %d, %v", what, pid, group, err)
			}
		}

		theirs := files(t, r.Pid())
		for fd, name := range files(t, relay) {
			if fd <= "2" && slices.Contains([]string{theirs["0"], theirs["1"], theirs["2"]}, name) && name != os.DevNull {
				t.Errorf("the relay's descriptor %s is containerd's %s", fd, name)
			}
		}
		if name := files(t, relay)["2"]; !strings.HasSuffix(name, "/c1/log") {
			t.Errorf("the relay's errors go to %s, want the bundle's log", name)
		}

		for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE} {
			check(t, unix.Kill(relay, signal))
		}
		res := r.CtrHearing([]string{"alive"}, "tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "echo alive"+rig.Hear)
		check(t, res.Check())
		if now := relays(r); res.Out() != "alive" || len(now) != 1 || now[0].PID != relay {
			t.Errorf("after signals to relay %d: %q from exec, relays %v", relay, res.Out(), now)
		}
	})
}

func oomScore(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	check(t, err)
	score, err := strconv.Atoi(strings.TrimSpace(string(text)))
	check(t, err)
	return score
}

// files are what a process has open, by descriptor.
func files(t *testing.T, pid int) map[string]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	check(t, err)
	open := map[string]string{}
	for _, e := range entries {
		if name, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			open[e.Name()] = name
		}
	}
	return open
}
