package explain_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/explain/causes"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
	"github.com/shimtrace/shimtrace/internal/waterfall/treetest"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

func attrs(a ...*commonpb.KeyValue) []*commonpb.KeyValue { return a }

// TestSeeded: each cause is named where it is, and no other.
func TestSeeded(t *testing.T) {
	for _, tt := range []struct {
		id, how string
		pod     *pod
		also    []string
	}{
		{"late-agent", "a guest that boots for 6 s, 240 attempts", (&pod{guest: 6 * time.Second, boot: attrs(integer(names.VMAttempts, 240))}).kata(), nil},
		{"vsock-backoff", "600 ms from the agent's first span to its first request", (&pod{connect: 600 * ms, boot: attrs(integer(names.VMAttempts, 4))}).kata(), nil},
		{"vmm-start", "a VMM that takes 2 s until its socket is bound", (&pod{vmm: 2 * time.Second}).kata(), nil},
		{"guest-debug", "agent.log=debug in the VMM's command line", (&pod{boot: attrs(text(names.VMDebug, "agent.log,debug_console"))}).kata(), nil},
		{"agent-policy", "a policy that takes 400 ms to set", (&pod{policy: 400 * ms}).kata(), nil},
		{"slow-virtiofs", "a mount of virtio-fs that takes 500 ms", (&pod{virtiofs: 500 * ms}).kata(), nil},
		{"stats-lock", "Stats that takes 900 ms, and a Create that waits for it", (&pod{statsWait: 900 * ms}).kata(), nil},
		{"hook", "a hook of 300 ms", (&pod{hook: 300 * ms}).runc(), nil},
		{"slow-disk", "runc create that waits 600 ms without computing", (&pod{runcExtra: 600 * ms}).runc(), nil},
		{"systemd-cgroup", "the same, in a cgroup that systemd manages", (&pod{runcExtra: 600 * ms, sandbox: attrs(text(names.CgroupManager, "systemd"))}).runc(), nil},
		{"image-pull", "a pull of 2 s", (&pod{pull: 2 * time.Second}).runc(), nil},
		{"unpack", "an image that takes 1.5 s to unpack", (&pod{unpack: 1500 * ms}).runc(), nil},
		{"cni", "a CNI plugin that takes 700 ms", (&pod{cni: 700 * ms}).runc(), nil},
		{"mounts", "600 ms between the shim's start and Create", (&pod{mounts: 600 * ms}).kata(), nil},
		{"mounts", "600 ms between the beginning of Create and runc create", (&pod{shimMounts: 600 * ms}).runc(), nil},
		{"idle-caller", "3 s between the sandbox's start and the container's", (&pod{queue: 3 * time.Second}).kata(), nil},
		{"cpu-throttled", "a cgroup that was throttled for 500 ms", (&pod{sandbox: attrs(integer(names.Throttled, int64(500*ms)), integer(names.PressureCPU, int64(600*ms)))}).kata(), nil},
		{"host-pressure", "processes that waited for a CPU during 60 % of the start", (&pod{sandbox: attrs(integer(names.PressureCPU, int64(600*ms)))}).kata(), nil},
		{"cold-page-cache", "a Create with 900 major page faults", (&pod{create: attrs(integer(names.InnerFaults, 400), integer(names.VMMFaults, 500))}).kata(), nil},
		{"own-shim", "an inner shim that takes 1.2 s until it serves", (&pod{inner: 1200 * ms}).runc(), nil},
		{"shimtrace", "a start command of ours that takes 400 ms longer", (&pod{own: 400 * ms}).runc(), nil},
	} {
		t.Run(tt.id+" "+tt.how, func(t *testing.T) {
			seeded.Named(t, seeded.Cause{ID: tt.id, How: tt.how, Parts: seeded.Spans, Also: tt.also}, of(t, tt.pod.data()))
		})
	}
}

// TestSeededStateTimeouts: State calls are given up while Create is slow.
func TestSeededStateTimeouts(t *testing.T) {
	p := (&pod{guest: 30 * time.Second}).kata()
	shim := storytest.Resource("containerd-shim-kata-v2")
	for i, at := range []time.Duration{3 * time.Second, 8 * time.Second, 14 * time.Second} {
		p.Span(shim, "s", "state "+string(rune('a'+i)), "sandbox", storytest.Task+"State", at, 2*time.Second, ofPause, storytest.Failed("abandoned", "its timeout passed"))
	}
	seeded.Named(t, seeded.Cause{
		ID: "state-timeouts", How: "three State calls that containerd gives up during a Create of 30 s", Parts: seeded.Spans, Also: []string{"late-agent"},
	}, of(t, p.data()))
}

// failing returns a start whose container's program is not in the image.
func failing(p *pod) *pod {
	p.runc()
	for _, r := range p.Spans {
		for _, s := range r.ScopeSpans[0].Spans {
			if s.Name == storytest.Task+"Start" && s.Attributes[0].Value.GetStringValue() == appID {
				storytest.Failed("NOT_FOUND", `exec: "nope": executable file not found in $PATH`)(s)
			}
		}
	}
	return p
}

// TestFailureFirst: what failed a start is said before what made it slow.
func TestFailureFirst(t *testing.T) {
	p := failing(&pod{sandbox: attrs(integer(names.PressureCPU, int64(600*ms)))})
	var found []string
	for _, c := range of(t, p.data()).Causes {
		found = append(found, c.ID)
	}
	if !slices.Equal(found, []string{"failed-start", "host-pressure"}) {
		t.Errorf("causes %q", found)
	}
}

// TestSeededFailures: a start that failed, and one with lost spans.
func TestSeededFailures(t *testing.T) {
	p := failing(&pod{})
	seeded.Named(t, seeded.Cause{ID: "failed-start", How: "a program that is not in the image", Parts: seeded.Spans}, of(t, p.data()))

	p = (&pod{}).kata()
	agent := storytest.Resource(names.AgentScope)
	p.Span(agent, "s", "lost", "create", names.LostAgentSpan, 700*ms, 20*ms, with(text(names.Placeholder, "true")))
	p.Span(agent, "s", "below", "lost", "add_storages", 700*ms, 20*ms)
	seeded.Named(t, seeded.Cause{ID: "lost-spans", How: "an agent's span that never arrives, although one below it does", Parts: seeded.Spans}, of(t, p.data()))
}

// TestCaptured: what the recorded pods say of themselves. They ran on an emulated CPU.
func TestCaptured(t *testing.T) {
	also := []string{"late-agent", "vmm-start", "idle-caller", "network-rescan"}
	golang, rust := of(t, storytest.Captured(storytest.GoPod)), of(t, storytest.Captured(storytest.RustPod))
	seeded.Named(t, seeded.Cause{ID: "network-rescan", How: "runtime-rs, a pod without a network interface", Parts: seeded.Captured, Also: also}, rust)
	seeded.Named(t, seeded.Cause{ID: "late-agent", How: "the Go runtime, QEMU without KVM", Parts: seeded.Captured, Also: also[:3]}, golang)
	for _, c := range golang.Causes {
		if c.ID == "network-rescan" {
			t.Error("the Go runtime polls no network namespace")
		}
	}
	seeded.Covered(t, "recorded pod: Kata's Go runtime, QEMU", golang)
	seeded.Covered(t, "recorded pod: Kata's runtime-rs, QEMU", rust)
}

// TestHealthy: nothing is named on pods without a fault, and all their time has an
// owner.
func TestHealthy(t *testing.T) {
	for name, p := range map[string]*pod{"runc": (&pod{}).runc(), "kata": (&pod{}).kata(), "kata without phases": withoutBoot((&pod{}).kata())} {
		e := of(t, p.data())
		if len(e.Causes) > 0 {
			t.Errorf("%s: %s", name, e)
		}
		if e.Coverage.Share() > seeded.Limit {
			t.Errorf("%s: %.1f %% without an owner\n%s", name, 100*e.Coverage.Share(), e)
		}
	}
}

// TestBusyHost: what takes longer than usual on a host without CPU time is put down to
// that, unless it takes longer than that explains.
func TestBusyHost(t *testing.T) {
	busy := attrs(integer(names.PressureCPU, int64(10*time.Second))) // all of the time
	e := of(t, (&pod{cni: 900 * ms, inner: 2 * time.Second, own: 200 * ms, sandbox: busy}).runc().data())
	if len(e.Causes) != 1 || e.Causes[0].ID != seeded.Pressed || !slices.Equal(e.Causes[0].Covers, []string{"cni", "own-shim", "shimtrace"}) || !strings.Contains(e.String(), "inner start took 2.00s, usually less than 500ms") {
		t.Errorf("%s", e)
	}
	e = of(t, (&pod{cni: 6 * time.Second, inner: 5 * time.Second, sandbox: busy}).runc().data())
	var found []string
	for _, c := range e.Causes {
		found = append(found, c.ID)
	}
	if slices.Sort(found); !slices.Equal(found, []string{"cni", seeded.Pressed, "own-shim"}) {
		t.Errorf("%s", e)
	}
}

// TestBusyHostWaits: what a program waited longer than for a CPU, it waited for something
// else; what the pod's own limit held it for, is none of these.
func TestBusyHostWaits(t *testing.T) {
	busy, throttled := integer(names.PressureCPU, int64(time.Second)), integer(names.Throttled, int64(550*ms))
	for _, tt := range []struct {
		name string
		pod  *pod
		want string
	}{
		{"a short wait on a busy host", (&pod{runcExtra: 600 * ms, sandbox: attrs(integer(names.PressureCPU, int64(10*time.Second)))}).runc(), "host-pressure"},
		{"a long wait on a busy host", (&pod{runcExtra: 4 * time.Second, sandbox: attrs(integer(names.PressureCPU, int64(10*time.Second)))}).runc(), "host-pressure slow-disk"},
		{"a pod without CPU time", (&pod{runcExtra: 600 * ms, sandbox: attrs(integer(names.Throttled, int64(900*ms)), busy)}).runc(), "cpu-throttled"},
		{"a short wait, and a host that does not say", (&pod{runcExtra: 600 * ms, sandbox: attrs(throttled)}).runc(), "cpu-throttled"},
	} {
		e := of(t, tt.pod.data())
		var found []string
		for _, c := range e.Causes {
			found = append(found, c.ID)
		}
		slices.Sort(found)
		if got := strings.Join(found, " "); got != tt.want {
			t.Errorf("%s: %s, want %s\n%s", tt.name, got, tt.want, e)
		}
	}
}

// TestLostSpans: only what was lost during the start may leave a hole in it.
func TestLostSpans(t *testing.T) {
	story, tree := treetest.Only(t, (&pod{}).runc().data())
	at := time.Unix(0, int64(story.Interval().From))
	for _, tt := range []struct {
		after  time.Duration
		reason string
		named  bool
	}{
		{time.Second, "queue_full", true}, {-time.Second, "queue_full", false}, {time.Hour, "queue_full", false},
		{time.Second, "retention", false}, {time.Second, "kept_out", false}, {time.Second, "second: kept_out", false},
	} {
		e := explain.Explain(story, tree, []causes.Loss{{At: at.Add(tt.after), Reason: tt.reason, Spans: 3}})
		if named := len(e.Causes) == 1 && e.Causes[0].ID == "lost-spans"; named != tt.named || len(e.Causes) > 1 {
			t.Errorf("%v: %s", tt, e)
		}
	}
}

// withoutBoot removes the spans of the VM's boot.
func withoutBoot(p *pod) *pod {
	kept := p.Spans[:0]
	for _, r := range p.Spans {
		switch r.ScopeSpans[0].Spans[0].Name {
		case names.VMBoot, names.VMMStart, names.GuestBoot, names.AgentConnect:
		default:
			kept = append(kept, r)
		}
	}
	p.Spans = kept
	return p
}
