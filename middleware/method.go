package middleware

import (
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/protofields"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// method is what is known of a method, and what its calls' spans begin with.
type method struct {
	Method
	service, name string
	fullName      string // "containerd.task.v3.Task/Create", the span's name
	settings      *settings
	quiet         bool                 // recorded only when it fails or is slow
	attributes    []attribute.KeyValue // of all its spans
	start         []trace.SpanStartOption
}

// maxMethods and maxName bound the methods remembered and their names in bytes:
// the names are a peer's.
const (
	maxMethods = 1024
	maxName    = 256
)

// methods remembers the methods seen.
type methods struct {
	cfg      *options
	mu       sync.RWMutex
	settings *settings
	all      map[string]map[string]*method
	n        int
}

// change has methods known from now on by other settings.
func (ms *methods) change(s *settings) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.settings, ms.all, ms.n = s, nil, 0
}

func (ms *methods) get(service, name []byte) *method {
	service, name = service[:min(len(service), maxName)], name[:min(len(name), maxName)]
	ms.mu.RLock()
	m, settings := ms.all[string(service)][string(name)], ms.settings
	ms.mu.RUnlock()
	if m != nil {
		return m
	}
	m = newMethod(ms.cfg, settings, string(service), string(name))
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.n >= maxMethods || ms.settings != settings {
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

func newMethod(cfg *options, s *settings, service, name string) *method {
	full := valid(service) + "/" + valid(name)
	attrs := []attribute.KeyValue{rpcSystem, semconv.RPCMethod(full)}
	return &method{
		Method:     cfg.known(service, name),
		service:    service,
		name:       name,
		fullName:   full,
		settings:   s,
		quiet:      slices.Contains(s.quiet, name) || slices.Contains(s.quiet, full),
		attributes: attrs,
		start:      []trace.SpanStartOption{trace.WithSpanKind(cfg.kind), trace.WithAttributes(attrs...)},
	}
}

var rpcSystem = attribute.String(string(semconv.RPCSystemNameKey), "ttrpc")

// readRequest fills in what the request's message says.
func (m *method) readRequest(c *Call, msg []byte) {
	var container, exec, sandbox, bundle, options []byte
	for f := protofields.Of(msg); f.Next() || f.Cut(); {
		switch {
		case f.Has(m.Signal, protowire.VarintType):
			c.Signal = uint32(f.Value)
		case f.Is(m.ContainerID):
			container = f.Bytes
		case f.Is(m.ExecID):
			exec = f.Bytes
		case f.Is(m.SandboxID):
			sandbox = f.Bytes
		case f.Is(m.Bundle):
			bundle = f.Bytes
		case f.Is(m.Options):
			options = f.Bytes
		}
	}
	c.ContainerID, c.ExecID, c.SandboxID, c.Bundle = text(container), text(exec), text(sandbox), text(bundle)
	if m.Options != 0 {
		c.Pod = podOf(options)
	}
	if m.FirstProcess && c.ExecID == c.ContainerID {
		c.ExecID = ""
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
	part := func(num protowire.Number) string { return text(wire.Bytes(m, num)) }
	return Pod{Name: part(podName), Namespace: part(podNamespace), UID: part(podUID)}
}

// readAnswer fills in what the answer's message says. An exit status of 0 is not on the
// wire: an answer has one if it has the time of an exit, or if its message has no field for
// that time.
func (m *method) readAnswer(c *Call, msg []byte) {
	if m.PID != 0 {
		v, _ := wire.Uint(msg, m.PID)
		c.PID = uint32(v)
	}
	if m.ExitStatus != 0 {
		v, set := wire.Uint(msg, m.ExitStatus)
		c.ExitStatus = uint32(v)
		c.ExitedAt = wire.Time(msg, m.ExitedAt)
		c.Exited = set || !c.ExitedAt.IsZero() || m.ExitedAt == 0
	}
}

// maxText bounds the ids and paths taken from a message, in bytes.
const maxText = 4096

// text returns a string as something that a span can carry: the peer that is to check
// it has not done so yet.
func text(b []byte) string {
	return valid(string(b[:min(len(b), maxText)]))
}

// valid returns s as valid UTF-8, which OTLP insists on.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
