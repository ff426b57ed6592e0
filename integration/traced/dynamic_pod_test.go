package traced_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// The life of a pod of which tracing is switched on twice: in its middle, while one
// exec is under way and until another one is, and at its end.
func TestDynamicPod(t *testing.T) {
	each(t, traced.Options{Config: onDemand}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		pod, err := r.RunPod(rig.Pod{Name: "web-0", Namespace: "shop", UID: "u-1", Runtime: in.Runtime.Name, HostNetwork: true})
		check(t, err)
		a, err := pod.Run(rig.Container{Name: "a"})
		check(t, err)
		check(t, r.Crictl("exec", "--sync", a, "true").Check())
		wantSilence(t, in)
		if files := relayFiles(t, r); len(files) != 4 {
			t.Errorf("a relay has the files %q, want a socket, one to control it, a state and a lock", files)
		}
		if st := turnOne(t, in, pod.ID, "status", "web-0"); st.On || st.Mode != "dynamic" || st.TraceID != "" {
			t.Errorf("status %+v", st)
		}

		first := startExec(in, a, "first")
		first.untilRuns(t)
		on := turnOne(t, in, pod.ID, "on", "shop/web-0")
		if !on.On || !on.Changed || !on.Until.IsZero() {
			t.Errorf("switched on: %+v", on)
		}
		if again := turnOne(t, in, pod.ID, "on", pod.ID[:12]); !again.On || again.Changed || again.TraceID != on.TraceID {
			t.Errorf("switched on again: %+v", again)
		}
		first.end(t)
		second := startExec(in, a, "second")
		second.untilRuns(t)
		if off := turnOne(t, in, pod.ID, "off", a); off.On || !off.Changed || off.TraceID != on.TraceID {
			t.Errorf("switched off: %+v", off)
		}
		second.end(t)
		check(t, r.Crictl("exec", "--sync", a, "true").Check())

		last := turnOne(t, in, pod.ID, "on", "web-0")
		if !last.Changed || last.TraceID == on.TraceID {
			t.Errorf("switched on anew: %+v", last)
		}
		check(t, pod.Remove())
		settle(t, in)
		all := settled(t, in)
		wantRooted(t, all)
		traces := byTrace(all)
		names := []string{pod.ID, "POD", a, "A"}
		wantTree(t, version(t), dynamicMiddle, withoutLateStarts(traces[on.TraceID]), names...)
		wantTree(t, version(t), dynamicEnd, traces[last.TraceID], names...)
		if len(traces) != 2 {
			t.Errorf("%d traces, want 2", len(traces))
		}
		for _, id := range []string{on.TraceID, last.TraceID} {
			if res := shimtrace(t, in, "show", id); res.Check() != nil || !strings.Contains(res.Stdout, "shop/web-0") || !strings.Contains(res.Stdout, switchedOff) {
				t.Errorf("show: %v\n%s", res.Check(), res.Stdout)
			}
			if res := shimtrace(t, in, "list"); !strings.Contains(res.Stdout, id[:12]) {
				t.Errorf("list: %v\n%s", res.Check(), res.Stdout)
			}
		}
	})
}

const dynamicPodResource = `
resource container.runtime.name=containerd host.name=HOST k8s.namespace.name=shop k8s.pod.name=web-0 k8s.pod.uid=u-1 service.instance.id=RUN service.name=containerd-shim-runc-v2 shimtrace.containerd.namespace=k8s.io shimtrace.runtime=runc shimtrace.sandbox.id=POD
`

// dynamicMiddle has the end of the first exec, and the second one but for its end.
const dynamicMiddle = dynamicPodResource + `trace
  tracing switched on user.id=0 user.name=alice
    Task/Delete server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=0 process.pid=PID shimtrace.exec.id=EXEC1
    Task/Exec server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.exec.id=EXEC2
    Task/Kill server NOT_FOUND container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.exec.id=EXEC1 shimtrace.expected=true shimtrace.expected.message=process already finished: not found shimtrace.signal=9
    Task/Start server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.pid=PID shimtrace.exec.id=EXEC2
    exec exited container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=0 shimtrace.exec.id=EXEC1 ! exec exited process.exit.code=0
    tracing switched off shimtrace.switched_off.reason=command user.id=0 user.name=alice
`

const dynamicEnd = dynamicPodResource + `trace
  tracing switched on user.id=0 user.name=alice
    Task/Delete server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID
    Task/Delete server OK container.id=POD process.exit.code=137 process.pid=PID
    Task/Kill server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.signal=9
    Task/Kill server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a shimtrace.signal=9
    Task/Kill server OK container.id=POD shimtrace.signal=9
    Task/Kill server OK container.id=POD shimtrace.signal=9
    Task/Shutdown server OK container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a
    Task/Shutdown server OK container.id=POD
    container exited container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 ! container exited process.exit.code=137
    container exited container.id=POD process.exit.code=137 ! container exited process.exit.code=137
    shim delete container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID
      inner delete container.id=A container.image.name=IMAGE container.name=a k8s.container.name=a process.exit.code=137 process.pid=PID
    shim delete container.id=POD process.exit.code=137 process.pid=PID
      inner delete container.id=POD process.exit.code=137 process.pid=PID
    tracing switched off shimtrace.switched_off.reason=sandbox ended
`

// withoutLateStarts leaves out what comes of a Start being answered when its process
// runs already.
func withoutLateStarts(spans []otlprecv.Span) []otlprecv.Span {
	return slices.DeleteFunc(slices.Clone(spans), func(s otlprecv.Span) bool {
		isStart := strings.HasSuffix(s.Name, "Task/Start")
		if isStart {
			delete(s.Attrs, "shimtrace.ended_after_off")
		}
		return isStart && s.Attrs["shimtrace.begun_before_on"] == true
	})
}

func byTrace(spans []otlprecv.Span) map[string][]otlprecv.Span {
	traces := map[string][]otlprecv.Span{}
	for _, s := range spans {
		traces[s.TraceID] = append(traces[s.TraceID], s)
	}
	return traces
}

// longExec is an exec that runs until it is told to end.
type longExec struct {
	in        *traced.Install
	container string
	name      string
	done      chan rig.Result
}

// startExec starts an exec in a container.
func startExec(in *traced.Install, container, name string) *longExec {
	e := &longExec{in: in, container: container, name: name, done: make(chan rig.Result, 1)}
	go func() {
		e.done <- in.Rig.Crictl("exec", "--sync", container, "sh", "-c", "touch /tmp/"+name+"; while [ -e /tmp/"+name+" ]; do sleep 0.05; done")
	}()
	return e
}

// root is the file system of the container, as its processes see it.
func (e *longExec) file(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/root/tmp/" + e.name)
	check(t, err)
	for _, f := range files {
		cgroup, _ := os.ReadFile(filepath.Join(strings.SplitN(f, "/root/", 2)[0], "cgroup"))
		if strings.Contains(string(cgroup), e.container) {
			return f
		}
	}
	return ""
}

func (e *longExec) untilRuns(t *testing.T) {
	t.Helper()
	until(t, "exec "+e.name, func() bool { return e.file(t) != "" })
}

func (e *longExec) end(t *testing.T) {
	t.Helper()
	// The process that it was found by may just have been one of the exec's sleeps.
	until(t, "the end of exec "+e.name, func() bool {
		f := e.file(t)
		return f != "" && os.Remove(f) == nil
	})
	res := <-e.done
	check(t, res.Check())
}

// Calls that hang when tracing is switched are in the trace with a mark: from when it
// was switched on, with their own start beside, and to their end.
func TestDynamicCallsUnderWay(t *testing.T) {
	dir := holdingRunc(t, tool(t, toolset.Runc))
	in := traced.Start(t, traced.Options{Options: rig.Options{Version: rig.V24, Path: []string{dir}}, Config: onDemand})
	r := in.Rig
	pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: in.Runtime.Name, HostNetwork: true})
	check(t, err)
	a, err := pod.Run(rig.Container{Name: "a"})
	check(t, err)
	hang := func(turns ...string) {
		hold(t, dir)
		done := make(chan rig.Result, 1)
		go func() { done <- r.Crictl("exec", "--sync", a, "true") }()
		untilHeld(t, dir)
		for _, to := range turns {
			turn(t, in, to, "p")
		}
		check(t, os.Remove(filepath.Join(dir, "hold")))
		res := <-done
		check(t, res.Check())
	}
	hang("on")
	hang("off")
	hang("on", "off")
	hang()
	turn(t, in, "on", "p")
	hang("off", "on")
	check(t, pod.Remove())
	settle(t, in)
	all := settled(t, in)
	wantRooted(t, all)

	var got []string
	for _, s := range all {
		exec, ok := s.Attrs["shimtrace.exec.id"]
		if !ok || !strings.HasSuffix(s.Name, "Task/Start") {
			continue
		}
		mark := "whole"
		before, after := s.Attrs["shimtrace.begun_before_on"] == true, s.Attrs["shimtrace.ended_after_off"] == true
		root := otlprecv.Named(byTrace(all)[s.TraceID], switchedOn)[0]
		off := otlprecv.Named(byTrace(all)[s.TraceID], switchedOff)[0]
		switch {
		case before && after:
			mark = "both"
		case before:
			mark = "before on"
		case after:
			mark = "after off"
		}
		began := s.Start()
		if own, ok := s.Attrs["shimtrace.original.start_time_unix_nano"].(int64); ok {
			began = time.Unix(0, own)
		}
		if s.Start().Before(root.Start()) || before != began.Before(root.Start()) || after != s.End().After(off.Start()) {
			t.Errorf("start of exec %v from %v to %v is marked %q; tracing was on from %v to %v", exec, s.Start(), s.End(), mark, root.Start(), off.Start())
		}
		got = append(got, mark)
	}
	if want := "before on, after off, both, after off"; strings.Join(got, ", ") != want {
		t.Errorf("calls are marked %q, want %q", strings.Join(got, ", "), want)
	}
}
