package middleware

import (
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

// method is what is known of a method before any call of it.
type method struct {
	service, name string
	fullName      string // "containerd.task.v3.Task/Create", the span's name
	kind          string // what knownServices says of the service
	quiet         bool   // recorded only when it fails or is slow
	endless       bool   // lasts as long as what it waits for: never slow
	last          bool   // the server may end without an answer
	start         []trace.SpanStartOption
	fields
}

// fields are the numbers of the well-known fields in a method's messages; 0 means
// that the message has none.
type fields struct {
	containerID, execID, sandboxID, bundle, signal, options protowire.Number // of the request
	pid, exitStatus, exitedAt                               protowire.Number // of the answer
}

// known has the fields of the services that containerd calls shims by: Task
// (api/runtime/task/v2 and v3, the same numbers) and Sandbox
// (api/runtime/sandbox/v1), as of containerd/api v1.12; and those of the Kata
// agent.
var known = map[string]map[string]fields{
	"Agent": agentFields,
	"Task": {
		"State":      {containerID: 1, execID: 2, pid: 3},
		"Create":     {containerID: 1, bundle: 2, pid: 1},
		"Start":      {containerID: 1, execID: 2, pid: 1},
		"Delete":     {containerID: 1, execID: 2, pid: 1, exitStatus: 2, exitedAt: 3},
		"Pids":       {containerID: 1},
		"Pause":      {containerID: 1},
		"Resume":     {containerID: 1},
		"Checkpoint": {containerID: 1},
		"Kill":       {containerID: 1, execID: 2, signal: 3},
		"Exec":       {containerID: 1, execID: 2},
		"ResizePty":  {containerID: 1, execID: 2},
		"CloseIO":    {containerID: 1, execID: 2},
		"Update":     {containerID: 1},
		"Wait":       {containerID: 1, execID: 2, exitStatus: 1, exitedAt: 2},
		"Stats":      {containerID: 1},
		"Connect":    {containerID: 1, pid: 2},
		"Shutdown":   {containerID: 1},
	},
	"Sandbox": {
		"CreateSandbox":   {sandboxID: 1, bundle: 2, options: 4},
		"StartSandbox":    {sandboxID: 1, pid: 1},
		"Platform":        {sandboxID: 1},
		"StopSandbox":     {sandboxID: 1},
		"WaitSandbox":     {sandboxID: 1, exitStatus: 1, exitedAt: 2},
		"SandboxStatus":   {sandboxID: 1, pid: 2},
		"PingSandbox":     {sandboxID: 1},
		"ShutdownSandbox": {sandboxID: 1},
		"SandboxMetrics":  {sandboxID: 1},
		"UpdateSandbox":   {sandboxID: 1},
	},
}

var knownServices = map[string]string{
	"containerd.task.v2.Task":               "Task",
	"containerd.task.v3.Task":               "Task",
	"containerd.runtime.sandbox.v1.Sandbox": "Sandbox",
	agentService:                            "Agent",
}

// maxMethods and maxName bound the methods remembered and their names in bytes:
// the names are a peer's.
const (
	maxMethods = 1024
	maxName    = 256
)

// methods remembers the methods seen.
type methods struct {
	cfg *options
	mu  sync.RWMutex
	all map[string]map[string]*method
	n   int
}

func (ms *methods) get(service, name []byte) *method {
	service, name = service[:min(len(service), maxName)], name[:min(len(name), maxName)]
	ms.mu.RLock()
	m := ms.all[string(service)][string(name)]
	ms.mu.RUnlock()
	if m != nil {
		return m
	}
	m = newMethod(ms.cfg, string(service), string(name))
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.n >= maxMethods {
		return m
	}
	if ms.all == nil {
		ms.all = make(map[string]map[string]*method)
	}
	if ms.all[m.service] == nil {
		ms.all[m.service] = make(map[string]*method)
	}
	ms.all[m.service][m.name] = m
	ms.n++
	return m
}

func newMethod(cfg *options, service, name string) *method {
	full := valid(service) + "/" + valid(name)
	kind := knownServices[service]
	return &method{
		service:  service,
		name:     name,
		fullName: full,
		kind:     kind,
		quiet:    slices.Contains(cfg.quiet, name) || slices.Contains(cfg.quiet, full),
		endless:  name == "Wait" || name == "WaitSandbox" || kind == "Agent" && agentEndless[name],
		last:     kind == "Task" && name == "Shutdown" || kind == "Agent" && name == "DestroySandbox",
		fields:   known[kind][name],
		start: []trace.SpanStartOption{
			trace.WithSpanKind(cfg.kind),
			trace.WithAttributes(rpcSystem, semconv.RPCMethod(full)),
		},
	}
}

var rpcSystem = attribute.String(string(semconv.RPCSystemNameKey), "ttrpc")

// readRequest fills in what the request's message says.
func (m *method) readRequest(c *Call, msg []byte) {
	c.ContainerID = text(msg, m.containerID)
	c.ExecID = text(msg, m.execID)
	c.SandboxID = text(msg, m.sandboxID)
	c.Bundle = text(msg, m.bundle)
	if m.signal != 0 {
		v, _ := wire.Uint(msg, m.signal)
		c.Signal = uint32(v)
	}
	if m.options != 0 {
		c.Pod = podOf(wire.Bytes(msg, m.options))
	}
	if m.kind == "Agent" && c.ExecID == c.ContainerID {
		c.ExecID = "" // Kata's Go runtime names a container's first process so
	}
}

// podOf returns the pod of a sandbox's options, a google.protobuf.Any. containerd's CRI
// plugin passes the pod's whole configuration there (sb.WithOptions in
// internal/cri/server/sandbox_run.go of containerd 2.4), a PodSandboxConfig (k8s.io/cri-api
// runtime/v1, the same numbers as in v1alpha2).
func podOf(options []byte) Pod {
	const typeURL, value = 1, 2                   // of Any
	const metadata = 1                            // of PodSandboxConfig
	const podName, podUID, podNamespace = 1, 2, 3 // of PodSandboxMetadata
	if !strings.HasSuffix(string(wire.Bytes(options, typeURL)), ".PodSandboxConfig") {
		return Pod{}
	}
	m := wire.Bytes(wire.Bytes(options, value), metadata)
	return Pod{Name: text(m, podName), Namespace: text(m, podNamespace), UID: text(m, podUID)}
}

// readAnswer fills in what the answer's message says. An exit status of 0 is not
// on the wire: an answer with the time of an exit has one.
func (m *method) readAnswer(c *Call, msg []byte) {
	if m.pid != 0 {
		v, _ := wire.Uint(msg, m.pid)
		c.PID = uint32(v)
	}
	if m.exitStatus != 0 {
		v, set := wire.Uint(msg, m.exitStatus)
		c.ExitStatus = uint32(v)
		c.ExitedAt = wire.Time(msg, m.exitedAt)
		c.Exited = set || !c.ExitedAt.IsZero() || m.kind == "Agent" // whose answers have no time
	}
}

// maxText bounds the ids and paths taken from a message, in bytes.
const maxText = 4096

// text returns the string in field num, as something that a span can carry: the
// peer that is to check it has not done so yet.
func text(msg []byte, num protowire.Number) string {
	if num == 0 {
		return ""
	}
	b := wire.Bytes(msg, num)
	return valid(string(b[:min(len(b), maxText)]))
}

// valid returns s as valid UTF-8, which OTLP insists on.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
