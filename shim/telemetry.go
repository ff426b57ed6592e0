package shim

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/export"
	"github.com/shimtrace/shimtrace/export/journal"
	"github.com/shimtrace/shimtrace/middleware"
)

// namespaceKey is the attribute with containerd's namespace.
const namespaceKey = attribute.Key("shimtrace.containerd.namespace")

// identity is what the resource of a sandbox's spans says.
type identity struct {
	sandbox   string
	namespace string
	inner     string // path of the inner shim
	notes     annotations
}

func (c command) identity(inner string) identity {
	notes, err := readAnnotations(c.bundle)
	if err != nil {
		notes = nil // no spec, no pod: the spans say less
	}
	return identity{sandbox: notes.sandboxID(c.id), namespace: c.namespace, inner: inner, notes: notes}
}

func (id identity) attributes() []attribute.KeyValue {
	return append(id.notes.pod(), middleware.SandboxIDKey.String(id.sandbox), namespaceKey.String(id.namespace))
}

// telemetry is a process's way for spans: a provider whose spans end up in the
// journal, and somebody to ship that.
type telemetry struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	journal  *journal.Journal
	keeper   *export.Keeper
}

// openTelemetry opens the journal and a provider that writes to it.
func openTelemetry(cfg config.Config, id identity, log *slog.Logger) (*telemetry, error) {
	j, err := journal.Open(cfg.Journal.Dir, journal.Options{
		MaxBytes:     int64(cfg.Journal.MaxBytes),
		SegmentBytes: int64(cfg.Journal.SegmentBytes),
		Shipped:      cfg.Export.Endpoint != "",
	})
	if err == nil {
		err = writable(cfg.Journal.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	t := &telemetry{journal: j}
	t.keeper = export.NewKeeper(cfg, func(format string, args ...any) { log.Warn(fmt.Sprintf(format, args...)) })
	ctx := context.Background()
	exporter, err := otlptrace.New(ctx, t.keeper.Client(j))
	if err != nil {
		j.Close()
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	res, err := export.NewResource(ctx, filepath.Base(id.inner), cfg.Resource, id.attributes()...)
	if err != nil {
		log.Warn("spans say less than they should", "error", err)
	}
	t.provider = export.NewTracerProvider(cfg.Trace, res, export.NewProcessor(exporter, export.ProcessorOptions{Drops: j}))
	t.tracer = t.provider.Tracer(ScopeName)
	return t, nil
}

// writable reports why a directory cannot be written to, nil if it can.
func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("directory %s is not writable: %w", dir, err)
	}
	return nil
}

// flushTime bounds how long a process that ends waits for its spans to be
// written.
const flushTime = 2 * time.Second

// close writes out what is left, and waits as long as linger for a shipper that is
// about to be replaced.
func (t *telemetry) close(log *slog.Logger, linger time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		log.Warn("spans were lost at exit", "error", err)
	}
	if err := t.journal.Close(); err != nil {
		log.Warn("close the journal", "error", err)
	}
	t.keeper.Close(linger)
}
