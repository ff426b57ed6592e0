package shim

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/export"
	"github.com/shimtrace/shimtrace/forwarder"
	"github.com/shimtrace/shimtrace/forwarder/agentwire"
	"github.com/shimtrace/shimtrace/forwarder/collate"
	"github.com/shimtrace/shimtrace/forwarder/listen"
)

// cidKey is the attribute that names a VM of no known sandbox.
const cidKey = attribute.Key("shimtrace.vsock.cid")

// collation returns how the spans of a VM get their place: of our sandbox under its
// calls, of another by themselves.
func (a *agents) collation(cfg config.Config, who identity, root traceContext) func(string, uint32) collate.Options {
	limits := cfg.Agent.Limits
	return func(sandbox string, cid uint32) collate.Options {
		o := collate.Options{
			Mode:     collate.Isolated,
			Quiet:    cfg.Trace.Quiet,
			Slow:     time.Duration(cfg.Trace.Slow),
			Hold:     time.Duration(limits.Hold),
			MaxSpans: limits.HeldSpans,
			MaxBytes: int(limits.HeldBytes),
			Sink:     a.export,
			Drop:     a.dropped,
		}
		attrs := who.attributes()
		if sandbox == "" {
			attrs = []attribute.KeyValue{cidKey.Int64(int64(cid))}
		} else {
			o.Root = root.spanContext()
			if cfg.Trace.Type == "collated" || cfg.Trace.Type == "auto" && root.Sampled {
				o.Mode = collate.Collated
			}
		}
		res, err := export.NewResource(context.Background(), agentService, cfg.Resource, attrs...)
		if err != nil {
			a.log.Warn("agent's spans say less than they should", "error", err)
		}
		o.Resource = resourceProto(res)
		return o
	}
}

// forwarderOptions are the configured limits.
func forwarderOptions(cfg config.Agent) forwarder.Options {
	l := cfg.Limits
	return forwarder.Options{
		Wire:           agentwire.Options{MaxFrame: int(l.FrameBytes), MaxValue: int(l.ValueBytes), Keep: cfg.Keep},
		SpansPerSecond: l.SpansPerSecond,
		SpanBurst:      l.SpanBurst,
		BytesPerSecond: int(l.BytesPerSecond),
		ByteBurst:      int(l.ByteBurst),
		QueuedSpans:    l.QueuedSpans,
		QueuedBytes:    int(l.QueuedBytes),
		MaxConnections: l.Connections,
	}
}

// patterns are the configured sockets; nil for the known ones.
func patterns(sockets map[string]string) []listen.Pattern {
	var all []listen.Pattern
	for _, vmm := range slices.Sorted(maps.Keys(sockets)) {
		all = append(all, listen.Pattern{VMM: vmm, Path: sockets[vmm]})
	}
	return all
}

// resourceProto returns the resource as OTLP has it.
func resourceProto(res *resource.Resource) *resourcepb.Resource {
	pb := new(resourcepb.Resource)
	for _, kv := range res.Attributes() {
		pb.Attributes = append(pb.Attributes, &commonpb.KeyValue{
			Key:   string(kv.Key),
			Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: kv.Value.String()}},
		})
	}
	return pb
}

// servingPID returns the process of the inner shim that serves the container's
// sandbox, 0 if there is none. The credentials of its socket name the process that
// made the socket, which was its start.
func servingPID(inner, id string) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if exe, err := os.Readlink(filepath.Join(dir, "exe")); err != nil || !sameFile(exe, inner) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		if args := bytes.Split(text, []byte{0}); slices.ContainsFunc(args, func(a []byte) bool { return string(a) == id }) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}
