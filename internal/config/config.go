// Package config is shimtrace's one typed configuration: defaults, overridden by a
// strict TOML file, overridden by OTEL_* environment variables or by the declarative
// file that OTEL_CONFIG_FILE names.
//
// It decides nothing and opens only these files. The shim, the relay and the
// operator's tool read it. An absent file is a valid configuration.
//
// The comments on the fields of Config, and on the variables, are the tables of
// docs/configuration.md; a test writes them.
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
	Metrics Metrics `toml:"metrics"`
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
	// `"static"` records for the sandbox's whole life; `"dynamic"` records while tracing is
	// switched on, see [operation.md](operation.md#tracing-on-demand); `"off"` gives
	// containerd the inner shim itself.
	Mode string `toml:"mode"`
	// Where the spans of a Kata agent and of Kata's own runtime go: `"collated"`: into the
	// sandbox's trace; `"isolated"`: into traces of their own, linked to it; `"auto"`:
	// collated where the shim's own spans are recorded, otherwise isolated.
	Type string `toml:"type"`
	// The trace of a call whose request carries containerd's context: `"caller"` or
	// `"sandbox"`; the other one is linked.
	Join string `toml:"join"`
	// The context formats that are read from and written into requests: `tracecontext`,
	// `baggage`, `jaeger`, `b3`, `b3multi`, `none`.
	Propagators []string `toml:"propagators"`
	// `always_on`, `always_off`, `traceidratio`, or one of them after `parentbased_`.
	Sampler string `toml:"sampler"`
	// The ratio of the `traceidratio` samplers.
	SamplerArg float64 `toml:"sampler_arg" type:"number from 0 to 1"`
	// Methods that are recorded only when they fail or take longer than `slow`.
	Quiet []string `toml:"quiet"`
	// How long a call takes at least that is recorded although it is in `quiet`; `Wait` and streams are never slow.
	Slow Duration `toml:"slow"`
	// The keys of a pod's annotations with the context of what caused the pod; the first one
	// that is there counts, and `join` applies to it: see
	// [spans.md](spans.md#what-caused-the-pod).
	Annotations []string `toml:"annotations"`
}

// Agent is about the Kata agent in the sandbox's VM: the spans it sends to the host,
// and the requests that the runtime sends to it.
type Agent struct {
	// `"on"`, `"off"`, or `"auto"`: on for inner shims with `kata` in their name.
	Receive string `toml:"receive"`
	// The hybrid VSOCK sockets of VMMs, by any name, with `{sandbox}` for the sandbox's id and
	// `{user}` for the user id of a rootless VMM. They replace the known ones: those of Cloud
	// Hypervisor, Firecracker, Dragonball and OpenVMM under both of Kata's runtimes. QEMU
	// needs none.
	Sockets map[string]string `toml:"sockets"`
	// User ids that may connect where agents' spans arrive there, besides root and the owner of
	// the socket's directory.
	Users []uint32 `toml:"users"`
	// The attributes whose values are kept. Every other one becomes its length (`<key>.size`),
	// since the agent prints whole requests into attributes, a container's environment
	// included. `*` at the end of a key matches any rest; `["*"]` keeps all, secrets included.
	Keep []string `toml:"keep"`
	// Whether the runtime's requests to the agent are relayed, and each gets a span and
	// carries its context (in W3C's form, if `propagators` of `[trace]` has `tracecontext`):
	// `"on"`, `"off"`, or `"auto"`: on for inner shims with `kata` in their name. It needs
	// hybrid VSOCK, which QEMU lacks.
	Inject string `toml:"inject"`
	// The agent's VSOCK port for requests.
	Port uint32 `toml:"port"`
	// Requests that are recorded only when they fail or take longer than `slow` of `[trace]`.
	// The same holds for requests that a quiet call causes (`StatsContainer` by `Stats`).
	// Requests that wait for something are never slow.
	Quiet  []string    `toml:"quiet"`
	Limits AgentLimits `toml:"limits"`
}

// Jaeger is about the spans of Kata's own runtimes, which speak Jaeger's protocol.
type Jaeger struct {
	// `"on"`, `"off"`, or `"auto"`: on for inner shims with `kata` in their name. Use `"off"`
	// where your own Jaeger is to have the port.
	Receive string `toml:"receive"`
	// An address of the loopback interface, with a port below the first that every user may
	// open (1024, `net.ipv4.ip_unprivileged_port_start`): see
	// [kata.md](kata.md#the-endpoint-for-runtimes-spans). `listen`, `body_bytes` and
	// `held_bytes` are the same for all runtimes of the host.
	Listen string `toml:"listen" type:"address"`
	// Names of spans that are recorded only when they fail or take longer than `slow` of
	// `[trace]`. The same holds for spans that a quiet call causes.
	Quiet []string `toml:"quiet"`
	// The longest post; a longer one is refused and counted.
	BodyBytes Bytes `toml:"body_bytes"`
	// Spans that wait until their sandbox is known; at least `body_bytes`.
	HeldBytes Bytes `toml:"held_bytes"`
}

// OTLP is about the spans that programs of the host post in OTLP. The host has these
// settings once.
type OTLP struct {
	// The endpoint's addresses; none: there is no endpoint. `"unix:/run/shimtrace/otlp.sock"`,
	// a socket in a directory that only root can change, or an address of the loopback
	// interface with a port, `"127.0.0.1:4317"`. All of them take gRPC, HTTP with protobuf and
	// HTTP with JSON.
	Listen []string `toml:"listen"`
	// User ids that may post, besides root and the user that `shimtrace collect` runs as.
	Users []uint32 `toml:"users"`
	// The longest post, after inflating, at most 1GiB; in JSON a quarter of it. A longer one
	// is refused, and its exporter drops it.
	BodyBytes Bytes `toml:"body_bytes"`
	// Bytes a second in the long run, of all connections together; one has at most a quarter.
	// Exporters send later what comes too fast.
	BytesPerSecond Bytes `toml:"bytes_per_second"`
}

// Metrics is about what shimtrace says of itself. The host has these settings once, in the
// common section.
type Metrics struct {
	// `"on"`: `shimtrace collect` sends metrics in OTLP to the first target of `[export]` that
	// speaks OTLP, that of `[export]` itself first: see
	// [operation.md](operation.md#metrics). `"off"`: none are sent.
	Send string `toml:"send"`
	// The pause between two uploads.
	Interval Duration `toml:"interval"`

	// own is what the environment makes of [export]'s target for metrics; nil: the same as
	// for spans.
	own *Target `toml:"-"`
}

// Process is about the processes that inner shims execute on the host.
type Process struct {
	// Whether the programs that the inner shim executes on the host (`runc`, hooks, a VMM) are
	// recorded, and when a container's own program is executed: `"auto"`: where the kernel
	// tells of it (see [operation.md](operation.md#process-events)), or `"off"`.
	Record string `toml:"record"`
}

// AgentLimits bound what the guest of one sandbox may send; packages agent, forwarder
// and collate describe each.
type AgentLimits struct {
	// The longest span; a longer one is skipped.
	FrameBytes Bytes `toml:"frame_bytes"`
	// The longest attribute value; a longer one is cut.
	ValueBytes Bytes `toml:"value_bytes"`
	// Spans in the long run.
	SpansPerSecond int `toml:"spans_per_second"`
	// Spans at once.
	SpanBurst int `toml:"span_burst"`
	// Bytes in the long run; a span counts with its bytes on the wire or in memory, whichever are
	// more.
	BytesPerSecond Bytes `toml:"bytes_per_second"`
	// Bytes at once.
	ByteBurst Bytes `toml:"byte_burst"`
	// Connections that are open at a time; an agent has one. One may be opened each second, and 32 at once.
	Connections int `toml:"connections"`
	// Spans that wait for the collator.
	QueuedSpans int `toml:"queued_spans"`
	// Bytes of these.
	QueuedBytes Bytes `toml:"queued_bytes"`
	// Spans that wait for their parents.
	HeldSpans int `toml:"held_spans"`
	// Bytes of these.
	HeldBytes Bytes `toml:"held_bytes"`
	// How long they wait there; the agent sends every 5 s.
	Hold Duration `toml:"hold"`
}

// Export says where the journal is shipped to: to its own target, if that has an
// endpoint, and to each of Targets. With neither, the journal is the store.
type Export struct {
	// The target that the environment overrides.
	Target
	// Further targets, by name: see [several targets](#several-targets). Nothing that
	// `[export]` itself says holds for them.
	Targets map[string]Target `toml:"target"`
	// Of which sandboxes spans are sent, decided when their start is over: `"all"`, `"slow"`
	// (and failed) or `"failed"`; see [journal.md](journal.md#what-is-sent).
	Only string `toml:"only"`
	// How long a start takes at least that is slow. The spans of such a sandbox, and of one
	// that failed to start or of which a container did, also [stay longest](journal.md#what-it-promises) in the journal.
	SlowStart Duration `toml:"slow_start"`
	// The part of all other sandboxes that is sent as well: `0.1` is one in ten.
	Ratio float64 `toml:"ratio"`
	// The program that is started, as `shipper collect`, to ship the journals and to receive
	// runtimes' spans, once per host; none: `shimtrace` beside the shim, or on `PATH`.
	Shipper string `toml:"shipper" type:"program"`
}

// Journal bounds the store on disk.
type Journal struct {
	// Where the segments are.
	Dir string `toml:"dir" type:"absolute path"`
	// Bounds all segments together, at least two of them; the oldest goes first, except for
	// spans within their sandbox's [share](journal.md#what-it-promises).
	MaxBytes Bytes `toml:"max_bytes"`
	// The size at which a segment is closed, at least 4 KiB.
	SegmentBytes Bytes `toml:"segment_bytes"`
}

// Relay is about the relay process.
type Relay struct {
	// Sockets, locks and state of the relays, for root only; the path has at most 66 bytes,
	// since socket paths are limited; the same for all runtimes of the host.
	StateDir string `toml:"state_dir" type:"absolute path"`
	// How long a container's start waits for the relay after the inner shim has answered,
	// before it goes on without tracing; at most 30 s.
	ReadyTimeout Duration `toml:"ready_timeout"`
}

// Log is about shimtrace's own log, which goes to containerd's log, as any shim's does.
type Log struct {
	// `"debug"`, `"info"`, `"warn"` or `"error"`.
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
		Metrics: Metrics{Send: "off", Interval: Duration(time.Minute)},
		OTLP: OTLP{
			Listen:         []string{},
			BodyBytes:      defaults.OTLPBody,
			BytesPerSecond: defaults.OTLPBytesPerSecond,
		},
		Process: Process{Record: "auto"},
		Export:  Export{Target: defaultTarget(), Only: "all", SlowStart: Duration(5 * time.Second)},
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
