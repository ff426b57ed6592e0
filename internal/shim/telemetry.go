package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/shimname"
	"github.com/shimtrace/shimtrace/middleware"
)

// Attributes of resources that the semantic conventions have no name for.
const (
	// namespaceKey is containerd's namespace.
	namespaceKey = attribute.Key("shimtrace.containerd.namespace")
	// runtimeKey is the name that the wrapper was called by ("kata-qemu"): many of them
	// may have one inner shim, whose name the service's is.
	runtimeKey = attribute.Key("shimtrace.runtime")
)

// identity is what the resource of a sandbox's spans says.
type identity struct {
	sandbox   string
	namespace string
	inner     string // path of the inner shim
	runtime   string // what its wrapper was called by, without what all such names have
	notes     annotations
	// run is the id of the sandbox's own trace, which no other run of a sandbox of the
	// same id has.
	run trace.TraceID
}

func (c command) identity(inner string) identity {
	notes, err := readAnnotations(c.bundle)
	if err != nil {
		notes = nil // no spec, no pod: the spans say less
	}
	name, _ := shimname.ParseLink(c.program)
	return identity{
		sandbox: notes.sandboxID(c.id), namespace: c.namespace, inner: inner, runtime: name.Inner, notes: notes,
	}
}

func (id identity) attributes() []attribute.KeyValue {
	attrs := append(id.notes.pod(), middleware.SandboxIDKey.String(id.sandbox), namespaceKey.String(id.namespace),
		semconv.ServiceInstanceID(id.run.String()))
	if id.runtime != "" {
		attrs = append(attrs, runtimeKey.String(id.runtime))
	}
	return attrs
}

// telemetry is a process's way for spans: a provider whose spans end up in the
// journal, and somebody to ship that.
type telemetry struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	journal  *journal.Journal
	keeper   *export.Keeper
	queue    *export.Queue // to the journal, for those who must not wait for it
	pod      *latePod
	endTime  time.Duration
}

// openTelemetry opens the journal and a provider that writes to it.
func openTelemetry(cfg config.Config, id identity, log *slog.Logger) (*telemetry, error) {
	j := journal.New(cfg.Journal.Dir, journal.Options{
		MaxBytes:     int64(cfg.Journal.MaxBytes),
		SegmentBytes: int64(cfg.Journal.SegmentBytes),
		Shipped:      cfg.Export.Endpoint != "",
	})
	if err := checkJournal(j); errors.Is(err, journal.ErrHangs) {
		log.Warn("spans wait in memory", "error", err)
	} else if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	t := &telemetry{journal: j, endTime: endTime}
	t.keeper = export.NewKeeper(cfg, func(format string, args ...any) { log.Warn(fmt.Sprintf(format, args...)) })
	ctx := context.Background()
	t.pod = &latePod{Client: t.keeper.Client(j), sandbox: id.sandbox}
	client := t.pod
	t.queue = export.NewQueue(client, j)
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		j.Close()
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	res, err := export.NewResource(ctx, filepath.Base(id.inner), cfg.Resource, id.attributes()...)
	if err != nil {
		log.Warn("spans say less than they should", "error", err)
	}
	// The provider reads a sampler from the environment, which ours takes the place
	// of, and says what it does not understand. Package config has said it.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	t.provider = export.NewTracerProvider(cfg.Trace, res, export.NewProcessor(exporter, export.ProcessorOptions{Drops: j}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("tracing", "error", err) }))
	t.tracer = t.provider.Tracer(ScopeName)
	return t, nil
}

// checkJournal returns why spans cannot be written, as far as that is known in time.
func checkJournal(j *journal.Journal) error {
	return j.Within(diskTime, func() error {
		if err := j.Check(); err != nil {
			return err
		}
		return writable(j.Dir())
	})
}

// writable reports why a directory cannot be written to, nil if it can.
func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("directory %s is not writable: %w", dir, err)
	}
	return nil
}

const (
	// flushTime bounds how long a span of which more depends may take to be written.
	flushTime = 2 * time.Second
	// endTime bounds how long a process that ends waits for its spans to be written.
	// Nobody waits for it then. A file system that is frozen for a snapshot is back
	// in a few seconds; killed by its own end, a write would not be made then.
	endTime = time.Minute
)

// close writes out what is left, and waits as long as linger for a shipper that is
// about to be replaced. A disk that hangs does not keep it.
func (t *telemetry) close(log *slog.Logger, linger time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), t.endTime)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- t.queue.Stop(ctx) }()
	if err := errors.Join(t.provider.Shutdown(ctx), <-stopped); err != nil {
		log.Warn("spans were lost at exit", "error", err)
	}
	if err := t.journal.Within(closeTime, t.journal.Close); err != nil {
		log.Warn("close the journal", "error", err)
	}
	within(linger+closeTime, func() { t.keeper.Close(linger) })
}
