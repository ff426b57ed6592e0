package traced_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// A window that is to end by itself does, though nobody waits for it, and can be
// given more time.
func TestDynamicFor(t *testing.T) {
	in := traced.Start(t, traced.Options{Config: onDemand})
	r := in.Rig
	check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
	on := turnOne(t, in, "box", "on", "box", "--for", "1h")
	check(t, r.Ctr("tasks", "pause", "box").Check())
	if less := turnOne(t, in, "box", "on", "box", "--for", "300ms"); less.Changed || !less.Until.Before(on.Until) {
		t.Errorf("given less time: %+v, before %+v", less, on)
	}
	until(t, "the window to end", func() bool { return !turnOne(t, in, "box", "status", "box").On })
	check(t, r.Ctr("tasks", "resume", "box").Check())
	check(t, r.Ctr("tasks", "delete", "--force", "box").Check())
	settle(t, in)
	wantTree(t, rig.V24, boxResource+`trace
  tracing switched on shimtrace.switched_on.for=1h0m0s user.id=0 user.name=alice
    Task/Pause server OK container.id=box
    tracing switched off shimtrace.switched_off.reason=time is over
`, settled(t, in), in.Rig.Name, "NAMESPACE")
}

const boxResource = `
resource container.runtime.name=containerd host.name=HOST service.instance.id=RUN service.name=containerd-shim-runc-v2 shimtrace.containerd.namespace=NAMESPACE shimtrace.runtime=runc shimtrace.sandbox.id=box
`

// All are those that run: each gets a trace of its own, and one that starts later
// gets none.
func TestDynamicAll(t *testing.T) {
	each(t, traced.Options{Config: onDemand}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		run := func(id string) {
			check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, id, "sleep", "1000").Check())
		}
		if res := shimtrace(t, in, "on", "all"); res.Code != 3 || !strings.Contains(res.Stderr, "no traced sandbox runs") {
			t.Errorf("switched on nothing: %v", res.Check())
		}
		pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: in.Runtime.Name, HostNetwork: true})
		check(t, err)
		run("box")
		run("bow")
		said := turn(t, in, "on", "all")
		if len(said) != 3 || !said["box"].Changed || !said["bow"].Changed || !said[pod.ID].Changed {
			t.Errorf("switched on %+v", said)
		}
		run("later")
		if res := shimtrace(t, in, "off", "bo"); res.Code != 2 || !strings.Contains(res.Stderr, "name one by its id") {
			t.Errorf("switched off one of two: %v", res.Check())
		}
		if res := shimtrace(t, in, "off", "nosuch"); res.Code != 3 {
			t.Errorf("switched off what is not there: %v", res.Check())
		}
		for _, id := range []string{"box", "bow", "later"} {
			check(t, r.Ctr("tasks", "pause", id).Check())
			check(t, r.Ctr("tasks", "resume", id).Check())
		}
		off := turn(t, in, "off", "all")
		if len(off) != 4 || off["later"].Changed || !off["box"].Changed || off["box"].TraceID != said["box"].TraceID {
			t.Errorf("switched off %+v", off)
		}
		var all []otlprecv.Span
		until(t, "the calls to be recorded, whose spans end after their answers", func() bool {
			all, err = in.Spans()
			check(t, err)
			n := 0
			for _, s := range all {
				if isOf(s, "pause") || isOf(s, "resume") {
					n++
				}
			}
			return n >= 4
		})
		wantRooted(t, all)
		for id, st := range said {
			var names []string
			for _, s := range byTrace(all)[st.TraceID] {
				if s.Resource["shimtrace.sandbox.id"] != id {
					t.Errorf("%s of %v in the trace of %s", s.Name, s.Resource["shimtrace.sandbox.id"], id)
				}
				names = append(names, s.Name[strings.LastIndexByte(s.Name, '/')+1:])
			}
			slices.Sort(names)
			want := []string{"Pause", "Resume", switchedOff, switchedOn}
			if id == pod.ID {
				want = want[2:]
			}
			if !slices.Equal(names, want) {
				t.Errorf("trace of %s: %q, want %q", id, names, want)
			}
		}
		if n := len(byTrace(all)); n != 3 {
			t.Errorf("%d traces, want 3", n)
		}
	})
}

// What is traced all the time cannot be switched, and says so.
func TestDynamicNot(t *testing.T) {
	in := traced.Start(t, traced.Options{})
	r := in.Rig
	check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
	for _, name := range []string{"box", "all"} {
		if res := shimtrace(t, in, "on", name); res.Code == 0 || !strings.Contains(res.Stderr, `trace.mode "static"`) {
			t.Errorf("on %s: exit code %d, %s", name, res.Code, res.Stderr)
		}
	}
	if st := turnOne(t, in, "box", "status"); st.Mode != "static" || !st.On {
		t.Errorf("status %+v", st)
	}
	until(t, "the relay to take requests", func() bool { return len(relayFiles(t, r)) == 4 })
	until(t, "the relay to say what it has recorded", func() bool {
		f := turnOne(t, in, "box", "status").Facts
		return f != nil && f.PID == relays(r)[0].PID && *f.Recorded > 0 && *f.Waiting == 0
	})
}

// A window goes on with the relay that follows a killed one, and ends as it would.
func TestDynamicRelayKilledIsFollowed(t *testing.T) {
	each(t, traced.Options{Config: onDemand}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
		killRelay(t, r) // while it is off
		wantSilence(t, in)
		on := turnOne(t, in, "box", "on", "box")
		killRelay(t, r)
		check(t, r.Ctr("tasks", "exec", "--exec-id", "during", "box", "true").Check())
		if st := turnOne(t, in, "box", "status"); !st.On || st.TraceID != on.TraceID {
			t.Errorf("after the kill: %+v, was %+v", st, on)
		}
		turnOne(t, in, "box", "off", "box")
		check(t, r.Ctr("tasks", "exec", "--exec-id", "after", "box", "true").Check())
		check(t, r.Ctr("tasks", "kill", "--signal", "KILL", "box").Check())
		until(t, "the container to end", func() bool { return !strings.Contains(r.Ctr("tasks", "list").Stdout, "RUNNING") })
		check(t, r.Ctr("tasks", "delete", "box").Check())
		check(t, r.Ctr("containers", "delete", "box").Check())
		settle(t, in)
		all := spansOfKilled(t, in)
		if len(byTrace(all)) != 1 || len(byTrace(all)[on.TraceID]) == 0 {
			t.Errorf("%d traces, want that of the window", len(byTrace(all)))
		}
		if n := len(otlprecv.Named(all, "containerd.task.v3.Task/Exec")) + len(otlprecv.Named(all, "containerd.task.v2.Task/Exec")); n != 1 {
			t.Errorf("%d Exec in the window, want 1", n)
		}
	})
}

// Without a guard, a relay that is killed while tracing is on leaves a whole trace: its
// root was there from the beginning, its end is made by delete.
func TestDynamicKilledRelay(t *testing.T) {
	each(t, traced.Options{Config: onDemand}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		in.WithoutGuard(t)
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
		on := turnOne(t, in, "box", "on", "box")
		check(t, unix.Kill(relays(r)[0].PID, unix.SIGKILL)) // at once
		if res := shimtrace(t, in, "off", "box"); res.Code != 3 {
			t.Errorf("switched off a dead relay: exit code %d, %s", res.Code, res.Stderr)
		}
		until(t, "containerd to notice", func() bool {
			return !strings.Contains(r.Ctr("tasks", "list").Stdout, "RUNNING")
		})
		r.Ctr("tasks", "delete", "--force", "box") // 1.7 has forgotten the task by now
		check(t, r.Ctr("containers", "delete", "box").Check())
		until(t, "everything to be gone", func() bool { return len(r.Processes()) == 0 })
		settle(t, in)
		until(t, "the end of the trace", func() bool { return len(otlprecv.Named(spans(t, in), "shim delete")) == 1 })
		all := spans(t, in)
		wantRooted(t, all)
		off := otlprecv.Named(all, switchedOff)
		if len(byTrace(all)) != 1 || len(byTrace(all)[on.TraceID]) == 0 || len(off) != 1 || off[0].Attrs["shimtrace.switched_off.reason"] != "relay died" {
			t.Errorf("%d traces; off %v", len(byTrace(all)), off)
		}
	})
}

// The same while it is off leaves nothing at all.
func TestDynamicKilledRelayWhileOff(t *testing.T) {
	each(t, traced.Options{Config: onDemand}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		in.WithoutGuard(t)
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
		check(t, unix.Kill(relays(r)[0].PID, unix.SIGKILL))
		until(t, "containerd to notice", func() bool {
			return !strings.Contains(r.Ctr("tasks", "list").Stdout, "RUNNING")
		})
		r.Ctr("tasks", "delete", "--force", "box")
		check(t, r.Ctr("containers", "delete", "box").Check())
		until(t, "everything to be gone", func() bool { return len(r.Processes()) == 0 })
		settle(t, in)
		wantSilence(t, in)
	})
}

// A shim that does not start is not traced, as nobody has asked for it.
func TestDynamicFailedStart(t *testing.T) {
	in := traced.Start(t, traced.Options{Config: onDemand})
	no := script(t, t.TempDir(), "containerd-shim-no-v2", "echo no such luck >&2; exit 1")
	configure(t, in, wrapping(in, no, "[trace]\nmode = 'dynamic'\n"))
	res := in.Rig.Ctr("run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "true")
	if res.Code == 0 || !strings.Contains(res.Stderr, "no such luck") {
		t.Errorf("it ran: %v", res.Check())
	}
	check(t, in.Rig.Ctr("containers", "list").Check())
	settle(t, in)
	wantSilence(t, in)
}

// While tracing is off a caller's context passes as it came, and its trace is as
// without a shim in between. While it is on, calls join it, linked to the window.
func TestDynamicCaller(t *testing.T) {
	t.Parallel()
	c := collect(t, selfTraced(onDemand))
	pod, err := c.Rig.RunPod(rig.Pod{Name: "p", Runtime: c.Runtime.Name, HostNetwork: true})
	check(t, err)
	on := turnOne(t, c.Install, pod.ID, "on", "p")
	a, err := pod.Run(rig.Container{Name: "a"})
	check(t, err)
	turn(t, c.Install, "off", "p")
	check(t, pod.Remove())
	all := c.complete()
	wantTree(t, rig.V24, podOfOneResource+`trace
  (client Task/Create of containerd)
    Task/Create server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.pid=PID ~ tracing switched on
  (client Task/Start of containerd)
    Task/Start server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.pid=PID ~ tracing switched on
trace
  tracing switched on user.id=0 user.name=alice
    tracing switched off shimtrace.switched_off.reason=command user.id=0 user.name=alice
`, all, pod.ID, "POD", a, "A")
	if res := shimtrace(t, c.Install, "show", on.TraceID); !strings.Contains(res.Stdout, "Task/Create") {
		t.Errorf("show does not follow the links: %v\n%s", res.Check(), res.Stdout)
	}
}

// Clients of the control socket that hang, and garbage, keep the relay from nothing.
func TestDynamicHostileControl(t *testing.T) {
	in := traced.Start(t, traced.Options{Config: onDemand})
	r := in.Rig
	check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
	sockets, err := filepath.Glob(filepath.Join(r.Dir, "run/shimtrace/s/*.ctl"))
	check(t, err)
	if len(sockets) != 1 {
		t.Fatalf("control sockets %q", sockets)
	}
	if st, err := os.Stat(sockets[0]); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the control socket is %v, %v", st, err)
	}
	for i := range 40 {
		conn := dialShort(t, sockets[0])
		switch i % 3 {
		case 1:
			fmt.Fprint(conn, strings.Repeat("\x00garbage", 10))
		case 2:
			fmt.Fprint(conn, `{"version":1,`)
		}
	}
	start := time.Now()
	check(t, r.Ctr("tasks", "pause", "box").Check())
	check(t, r.Ctr("tasks", "resume", "box").Check())
	if !turnOne(t, in, "box", "on", "box").On {
		t.Error("not switched on")
	}
	t.Logf("paused, resumed and switched on in %v", time.Since(start))
	check(t, r.Ctr("tasks", "delete", "--force", "box").Check())
	settle(t, in)
	wantRooted(t, settled(t, in))
}
