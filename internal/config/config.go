// Package config is shimtrace's one typed configuration: defaults, overridden by a
// strict TOML file, overridden by OTEL_* environment variables.
//
// It decides nothing and opens only the file. The shim, the relay and the operator's
// tool read it. An absent file is a valid configuration.
package config

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// DefaultPath is the file read when SHIMTRACE_CONFIG is not set.
const DefaultPath = "/etc/shimtrace/config.toml"

// PathEnv names the environment variable that overrides DefaultPath.
const PathEnv = "SHIMTRACE_CONFIG"

// Config is the configuration of one inner shim: the file's common sections, overridden
// by that shim's [runtime.<inner>] section, overridden by the environment.
type Config struct {
	Trace   Trace   `toml:"trace"`
	Agent   Agent   `toml:"agent"`
	Jaeger  Jaeger  `toml:"jaeger"`
	OTLP    OTLP    `toml:"otlp"`
	Process Process `toml:"process"`
	Export  Export  `toml:"export"`
	Journal Journal `toml:"journal"`
	Relay   Relay   `toml:"relay"`
	Log     Log     `toml:"log"`
	// Resource holds attributes added to every span's resource.
	Resource map[string]string `toml:"resource"`

	// Shim is the path or name of the inner shim ([runtime.<inner>] shim); empty means
	// to look for it by the inner's name.
	Shim string `toml:"-"`
	// Runtime is the inner shim's name if the file has a section for it.
	Runtime string `toml:"-"`
}

// Trace says what is recorded and how contexts travel.
type Trace struct {
	// Mode is "static" (record for the sandbox's whole life), "dynamic" (record while
	// switched on, by "shimtrace on") or "off" (no relay: containerd gets the inner
	// shim's own address).
	Mode string `toml:"mode"`
	// Type says where the spans of the Kata agent and runtime go: "collated" (into the
	// sandbox's trace), "isolated" (each in its own trace, linked) or "auto": collated
	// where shimtrace's own spans are recorded, isolated otherwise.
	Type string `toml:"type"`
	// Join is the trace that a call span belongs to when its request carries the
	// caller's context: "caller" or "sandbox". The other one is linked.
	Join string `toml:"join"`
	// Propagators are the context formats read from and written into requests:
	// "tracecontext", "baggage", "jaeger", "b3", "b3multi", "none".
	// OTEL_PROPAGATORS overrides it.
	Propagators []string `toml:"propagators"`
	// Sampler and SamplerArg are OTEL_TRACES_SAMPLER and its argument, which
	// override them: "always_on", "always_off", "traceidratio" and the same with
	// "parentbased_" before them.
	Sampler    string  `toml:"sampler"`
	SamplerArg float64 `toml:"sampler_arg"`
	// Quiet are the methods whose calls are recorded only when they fail or take
	// longer than Slow. Wait and streams are never slow.
	Quiet []string `toml:"quiet"`
	Slow  Duration `toml:"slow"`
	// Annotations are the keys of a pod's annotations with the context of what caused
	// the pod; the first one that is present counts. Join applies to it.
	Annotations []string `toml:"annotations"`
}

// Agent is about the Kata agent in the sandbox's VM: the spans it sends to the host,
// and the requests that the runtime sends to it.
type Agent struct {
	// Receive is "on", "off" or "auto": on for inner shims whose name has "kata".
	Receive string `toml:"receive"`
	// Sockets replaces the known hybrid VSOCK sockets of VMMs: paths, by any name, with
	// {sandbox} for the sandbox's id. QEMU needs none.
	Sockets map[string]string `toml:"sockets"`
	// Users may connect to the agent's port of these sockets, beside root and the
	// owner of the socket's directory; numeric ids.
	Users []uint32 `toml:"users"`
	// Keep lists the attributes whose values are kept; any other value becomes its
	// length. "*" at the end of a key matches any rest; "*" alone keeps all, including
	// a container's secrets. nil means the known harmless ones.
	Keep []string `toml:"keep"`
	// Inject is "on", "off" or "auto": on for inner shims whose name has "kata". It
	// relays the runtime's requests to the agent, over hybrid VSOCK, and adds contexts
	// to them.
	Inject string `toml:"inject"`
	// Port is the agent's VSOCK port for requests.
	Port uint32 `toml:"port"`
	// Quiet are the agent's requests that are recorded only when they fail or take
	// longer than Trace.Slow, in addition to those that quiet calls of the shim cause.
	// Requests that wait for something are never slow.
	Quiet  []string    `toml:"quiet"`
	Limits AgentLimits `toml:"limits"`
}

// Jaeger is about the spans of Kata's own runtimes, which speak Jaeger's protocol.
type Jaeger struct {
	// Receive is "on", "off" or "auto": on for inner shims whose name has "kata".
	Receive string `toml:"receive"`
	// Listen is the address of the host's one endpoint: a loopback address and a port.
	// All runtimes share it.
	Listen string `toml:"listen"`
	// Quiet are the names of spans that are recorded only when they fail or take
	// longer than Trace.Slow.
	Quiet []string `toml:"quiet"`
	// BodyBytes bounds one request to the endpoint, HeldBytes the spans that wait there
	// until their sandbox is known.
	BodyBytes Bytes `toml:"body_bytes"`
	HeldBytes Bytes `toml:"held_bytes"`
}

// OTLP is about the spans that programs of the host post in OTLP. The host has these
// settings once.
type OTLP struct {
	// Listen are the addresses of the endpoint: "unix:" and a path, or a loopback
	// address and a port. None: there is no endpoint.
	Listen []string `toml:"listen"`
	// Users may post beside root and our own user; numeric ids.
	Users []uint32 `toml:"users"`
	// BodyBytes bounds one post, BytesPerSecond all of them in the long run.
	BodyBytes      Bytes `toml:"body_bytes"`
	BytesPerSecond Bytes `toml:"bytes_per_second"`
}

// Process is about the processes that inner shims execute on the host.
type Process struct {
	// Record is "auto" (where the kernel tells of them) or "off".
	Record string `toml:"record"`
}

// AgentLimits bound what the guest of one sandbox may send; packages agent, forwarder
// and collate describe each.
type AgentLimits struct {
	FrameBytes     Bytes `toml:"frame_bytes"`
	ValueBytes     Bytes `toml:"value_bytes"`
	SpansPerSecond int   `toml:"spans_per_second"`
	SpanBurst      int   `toml:"span_burst"`
	BytesPerSecond Bytes `toml:"bytes_per_second"`
	ByteBurst      Bytes `toml:"byte_burst"`
	Connections    int   `toml:"connections"`
	// QueuedSpans and QueuedBytes bound what waits to be collated; HeldSpans, HeldBytes
	// and Hold (a time) bound what waits there for its parents.
	QueuedSpans int      `toml:"queued_spans"`
	QueuedBytes Bytes    `toml:"queued_bytes"`
	HeldSpans   int      `toml:"held_spans"`
	HeldBytes   Bytes    `toml:"held_bytes"`
	Hold        Duration `toml:"hold"`
}

// Export says where the journal is shipped to. With no endpoint the journal is
// the store.
type Export struct {
	// Preset names a backend, whose address and protocol are then the defaults of
	// Endpoint and Protocol; see presets.
	Preset string `toml:"preset"`
	// Endpoint is the backend's base URL, as in OTEL_EXPORTER_OTLP_ENDPOINT,
	// which overrides it. Empty: nothing is shipped.
	Endpoint string `toml:"endpoint"`
	// Protocol is "http/protobuf", "grpc" (OTEL_EXPORTER_OTLP_PROTOCOL) or "zipkin".
	Protocol string            `toml:"protocol"`
	Headers  map[string]string `toml:"headers"`
	// HeaderFiles are headers whose values are in files, by name; they are read for
	// each request.
	HeaderFiles map[string]string `toml:"header_files"`
	// CA is a file with the authorities that the backend's certificate may be from;
	// empty means the host's. Cert and Key are files with the client's own certificate.
	// All are in PEM.
	CA   string `toml:"ca"`
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
	// Insecure: an Endpoint that is a host with a port is spoken to without TLS.
	Insecure bool     `toml:"insecure"`
	Timeout  Duration `toml:"timeout"`
	// Compression is "gzip" or "none" (OTEL_EXPORTER_OTLP_COMPRESSION).
	Compression string `toml:"compression"`
	// Only is "all", "slow" or "failed": of which sandboxes spans are shipped, by their
	// start. SlowStart is what is slow, Ratio the part of the others that is shipped as
	// well.
	Only      string   `toml:"only"`
	SlowStart Duration `toml:"slow_start"`
	Ratio     float64  `toml:"ratio"`
	// Shipper is the program that drains the journal and receives the runtimes' spans;
	// empty means the shimtrace tool beside the wrapper or on PATH.
	Shipper string `toml:"shipper"`

	// exact: the endpoint is the whole URL that spans are posted to.
	exact bool `toml:"-"`
}

// Journal bounds the store on disk.
type Journal struct {
	Dir string `toml:"dir"`
	// MaxBytes bounds all segments together; the oldest is removed first.
	MaxBytes Bytes `toml:"max_bytes"`
	// SegmentBytes is the size at which a segment is closed.
	SegmentBytes Bytes `toml:"segment_bytes"`
}

// Relay is about the relay process.
type Relay struct {
	// StateDir holds the relays' sockets, locks and state (mode 0700). Its length
	// bounds the socket paths: 106 bytes in all.
	StateDir string `toml:"state_dir"`
	// ReadyTimeout is how long start waits for the relay, once the inner shim has
	// answered, before it returns the inner shim's address instead.
	ReadyTimeout Duration `toml:"ready_timeout"`
}

// Log is about shimtrace's own log, which goes to containerd's log, as any shim's does.
type Log struct {
	Level string `toml:"level"`
}

// Default returns the configuration that holds when nothing is configured.
func Default() Config {
	return Config{
		Trace: Trace{
			Mode:        "static",
			Type:        "auto",
			Join:        "caller",
			Propagators: []string{"tracecontext", "baggage"},
			Sampler:     "parentbased_always_on",
			SamplerArg:  1,
			Quiet:       []string{"State", "Stats", "Pids", "Connect", "Wait"},
			Slow:        Duration(500 * time.Millisecond),
			Annotations: []string{"tracing.k8s.io/traceparent", "opentelemetry.io/trace-context"},
		},
		Agent: Agent{
			Receive: "auto",
			Inject:  "auto",
			Port:    kata.AgentPort,
			Quiet:   kata.FrequentRequests(),
			Limits: AgentLimits{
				FrameBytes:     defaults.FrameBytes,
				ValueBytes:     defaults.ValueBytes,
				SpansPerSecond: defaults.SpansPerSecond,
				SpanBurst:      defaults.SpanBurst,
				BytesPerSecond: defaults.BytesPerSecond,
				ByteBurst:      defaults.ByteBurst,
				Connections:    defaults.Connections,
				QueuedSpans:    defaults.QueuedSpans,
				QueuedBytes:    defaults.QueuedBytes,
				HeldSpans:      defaults.HeldSpans,
				HeldBytes:      defaults.HeldBytes,
				Hold:           Duration(defaults.Hold),
			},
		},
		Jaeger: Jaeger{
			Receive:   "auto",
			Listen:    "127.0.0.1:276",
			Quiet:     []string{kata.Endpoints},
			BodyBytes: defaults.JaegerBody,
			HeldBytes: defaults.JaegerHeld,
		},
		OTLP: OTLP{
			Listen:         []string{},
			BodyBytes:      defaults.OTLPBody,
			BytesPerSecond: defaults.OTLPBytesPerSecond,
		},
		Process: Process{Record: "auto"},
		Export: Export{
			Protocol:    "http/protobuf",
			Timeout:     Duration(10 * time.Second),
			Compression: "gzip",
			Only:        "all",
			SlowStart:   Duration(5 * time.Second),
		},
		Journal: Journal{
			Dir:          "/var/lib/shimtrace/journal",
			MaxBytes:     defaults.JournalBytes,
			SegmentBytes: defaults.SegmentBytes,
		},
		Relay: Relay{
			StateDir:     "/run/shimtrace",
			ReadyTimeout: Duration(2 * time.Second),
		},
		Log: Log{Level: "info"},
	}
}
