package explain_test

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

const ms = time.Millisecond

const appID = "a11ce000c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e305"

func integer(key string, n int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: n}}}
}

func text(key, value string) *commonpb.KeyValue { return storytest.Attr(key, value) }

func with(attrs ...*commonpb.KeyValue) storytest.Change { return storytest.With(attrs...) }

var (
	ofPause = with(text(names.Container, storytest.SandboxID))
	ofApp   = with(text(names.Container, appID), text(names.ContainerName, "app"))
)

// containerd is a resource of containerd's own spans, which names no sandbox.
var containerd = &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text(names.Service, "containerd")}}

// pod makes the spans of a pod's start one after the other; its zero value is healthy.
type pod struct {
	storytest.Script
	at time.Duration // of the last span's end

	// Of the caller.
	pull, unpack, cni time.Duration
	queue             time.Duration // between the sandbox's start and the container's
	// Of the shim.
	inner, mounts, own time.Duration
	sandbox            []*commonpb.KeyValue // of "sandbox start"
	// Of runc.
	runcExtra, hook, shimMounts time.Duration
	// Of a VM.
	vmm, guest, connect time.Duration
	boot                []*commonpb.KeyValue
	virtiofs, policy    time.Duration
	statsWait           time.Duration
	create              []*commonpb.KeyValue // of the sandbox's Create
}

// or returns d, or what is usual.
func or(d, usual time.Duration) time.Duration {
	if d == 0 {
		return usual
	}
	return d
}

func process(role, name string, cpu time.Duration) storytest.Change {
	attrs := []*commonpb.KeyValue{text("process.executable.name", name), integer(names.ProcessCPUTime, int64(cpu))}
	if role != "" {
		attrs = append(attrs, text(names.ProcessRole, role))
	}
	return with(attrs...)
}

// runc makes a pod that runc runs, with containerd's spans above.
func (p *pod) runc() *pod {
	shim := storytest.Resource("containerd-shim-runc-v2")
	root := "sandbox"
	p.sandbox = append(p.sandbox, integer(names.PressureCPU, int64(3*ms)))
	p.at = 5 * ms
	p.caller("cni.setup_pod_network", or(p.cni, 30*ms))
	began := p.at
	p.Span(shim, "s", "start", root, names.ShimStart, p.at, or(p.inner, 40*ms)+4*ms+p.own)
	p.Span(shim, "s", "inner", "start", names.InnerStart, p.at+2*ms, or(p.inner, 40*ms))
	p.at += p.own + or(p.inner, 40*ms) + 4*ms + or(p.mounts, 2*ms)
	p.runcCreate(shim, root, "pause", ofPause, 0)
	p.runcStart(shim, root, "pause", ofPause)
	p.Span(shim, "s", root, "", names.SandboxStart, began, p.at-began, with(p.sandbox...))
	p.Span(containerd, "c", "RunPodSandbox", "", "runtime.v1.RuntimeService/RunPodSandbox", 0, p.at+3*ms)
	p.at += 3*ms + p.queue
	if p.pull > 0 || p.unpack > 0 {
		p.image()
	}
	app := p.at
	p.at += 2 * ms
	p.runcCreate(shim, root, "app", ofApp, p.hook)
	p.Span(containerd, "c", "CreateContainer", "", "runtime.v1.RuntimeService/CreateContainer", app, p.at-app)
	app = p.at
	p.runcStart(shim, root, "app", ofApp)
	p.Span(containerd, "c", "StartContainer", "", "runtime.v1.RuntimeService/StartContainer", app, p.at-app+2*ms)
	return p
}

func (p *pod) caller(name string, d time.Duration) {
	p.Span(containerd, "c", name, "RunPodSandbox", name, p.at, d)
	p.at += d
}

func (p *pod) image() {
	at := p.at
	p.Span(containerd, "c", "fetch", "Pull", "pull.fetch", p.at+ms, or(p.pull, 20*ms))
	p.at += or(p.pull, 20*ms) + ms
	p.Span(containerd, "c", "unpack", "Pull", "pkg.unpack.unpacker.unpack", p.at, or(p.unpack, 10*ms))
	p.at += or(p.unpack, 10*ms)
	p.Span(containerd, "c", "Pull", "", "pull.Pull", at, p.at-at, with(text("image.ref", "docker.io/library/web:1")))
}

func (p *pod) runcCreate(shim *resourcepb.Resource, root, id string, of storytest.Change, hook time.Duration) {
	create := 45*ms + hook + p.runcExtra
	p.Span(shim, "s", "create "+id, root, storytest.Task+"Create", p.at, p.shimMounts+create+8*ms, of, storytest.Linked("c", "x"))
	p.at += p.shimMounts
	p.Span(shim, "s", "runc create "+id, "create "+id, "runc create", p.at+3*ms, create, process("oci_runtime", "runc", 20*ms))
	if hook > 0 {
		p.Span(shim, "s", "hook "+id, "runc create "+id, "nvidia-hook", p.at+30*ms, hook, process("hook", "nvidia-hook", 5*ms))
	}
	p.at += create + 8*ms + ms
}

func (p *pod) runcStart(shim *resourcepb.Resource, root, id string, of storytest.Change) {
	p.Span(shim, "s", "run "+id, root, storytest.Task+"Start", p.at, 16*ms, of, storytest.Event(names.ProgramExecuted, 12*ms))
	p.Span(shim, "s", "runc start "+id, "run "+id, "runc start", p.at+ms, 13*ms, process("oci_runtime", "runc", 8*ms))
	p.at += 16*ms + ms
}

// kata makes a pod that Kata's Go runtime runs in a VM; the runtime's and the agent's
// spans arrive.
func (p *pod) kata() *pod {
	shim, runtime, agent := storytest.Resource("containerd-shim-kata-v2"), storytest.Resource(names.RuntimeScope), storytest.Resource(names.AgentScope)
	root := "sandbox"
	p.Span(shim, "s", "start", root, names.ShimStart, 0, or(p.inner, 60*ms)+4*ms)
	p.Span(shim, "s", "inner", "start", names.InnerStart, 2*ms, or(p.inner, 60*ms))
	create := or(p.inner, 60*ms) + 4*ms + or(p.mounts, 4*ms)
	p.at = create + 6*ms
	at := p.at
	p.phase(shim, names.VMMStart, or(p.vmm, 120*ms))
	p.phase(shim, names.GuestBoot, or(p.guest, 420*ms))
	p.phase(shim, names.AgentConnect, or(p.connect, 15*ms))
	p.Span(shim, "s", "boot", "create", names.VMBoot, at, p.at-at, with(p.boot...))
	p.Span(runtime, "s", "startVM", "create rt", "startVM", at, p.at-at)
	p.request(runtime, agent, "create rt", "SetPolicy", "set_policy", or(p.policy, 2*ms))
	sandbox := p.at
	p.Span(runtime, "s", "ttrpc.CreateSandbox", "create rt", "ttrpc.CreateSandbox", sandbox, 15*ms+or(p.virtiofs, 3*ms))
	p.Span(agent, "s", "create_sandbox", "ttrpc.CreateSandbox", "create_sandbox", sandbox+ms, 13*ms+or(p.virtiofs, 3*ms))
	p.Span(agent, "s", "mount", "create_sandbox", "baremount", sandbox+5*ms, or(p.virtiofs, 3*ms),
		with(text("fs_type", "virtiofs"), text("destination", `"/run/kata-containers/shared/containers/"`)))
	p.at += 15*ms + or(p.virtiofs, 3*ms)
	p.request(runtime, agent, "create rt", "CreateContainer", "create_container", 60*ms)
	p.Span(runtime, "s", "create rt", "create", "create", create+2*ms, p.at-create)
	p.Span(shim, "s", "create", root, storytest.Task+"Create", create, p.at-create+5*ms, ofPause, with(p.create...))
	p.at += 8 * ms
	p.kataStart(shim, runtime, agent, root, "pause", ofPause)
	p.Span(shim, "s", root, "", names.SandboxStart, 0, p.at, with(p.sandbox...))
	p.at += 20*ms + p.queue
	create = p.at
	p.at += 3*ms + p.statsWait
	rt := p.at
	p.request(runtime, agent, "create app rt", "CreateContainer", "create_container app", 60*ms)
	p.Span(runtime, "s", "create app rt", "create app", "create", rt-3*ms-p.statsWait, p.at-rt+4*ms+p.statsWait)
	p.Span(shim, "s", "create app", root, storytest.Task+"Create", create-ms, p.at-create+4*ms, ofApp)
	if p.statsWait > 0 {
		p.Span(shim, "s", "stats", root, storytest.Task+"Stats", create-20*ms, p.statsWait+22*ms, ofPause)
	}
	p.at += 5 * ms
	p.kataStart(shim, runtime, agent, root, "app", ofApp)
	return p
}

func (p *pod) phase(shim *resourcepb.Resource, name string, d time.Duration) {
	p.Span(shim, "s", name, "boot", name, p.at, d)
	p.at += d
}

func (p *pod) request(runtime, agent *resourcepb.Resource, parent, method, id string, d time.Duration) {
	p.Span(runtime, "s", "rt "+id, parent, "ttrpc."+method, p.at, d+2*ms)
	p.Span(agent, "s", id, "rt "+id, id, p.at+ms, d)
	p.at += d + 3*ms
}

func (p *pod) kataStart(shim, runtime, agent *resourcepb.Resource, root, id string, of storytest.Change) {
	at := p.at
	p.at += 2 * ms
	p.request(runtime, agent, "start rt "+id, "StartContainer", "start_container "+id, 12*ms)
	p.Span(runtime, "s", "start rt "+id, "start "+id, "Start", at+ms, p.at-at)
	p.Span(shim, "s", "start "+id, root, storytest.Task+"Start", at, p.at-at+2*ms, of)
	p.at += 3 * ms
}

func (p *pod) data() []byte { return storytest.Message(p.Spans) }
