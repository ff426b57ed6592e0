package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// Telemetry is what a process records spans with: a provider whose spans end up in the
// journal, and a Keeper that has the journal shipped.
type Telemetry struct {
	Provider *export.Provider
	Tracer   trace.Tracer
	Journal  *journal.Journal
	Keeper   *export.Keeper
	Queue    *export.Queue // to the journal, for those who must not wait for it

	own     *export.Queue // the provider's
	sandbox string
	slow    time.Duration // of starts
	pod     *latePod
	endTime time.Duration
}

// Open opens the journal and a provider that writes to it. waiting counts the spans that
// are on their way to the journal; it may be nil.
func Open(cfg config.Config, id state.Identity, log *slog.Logger, waiting *atomic.Int64) (*Telemetry, error) {
	j := journal.New(cfg.Journal.Dir, export.JournalOptions(cfg))
	if err := checkJournal(j); errors.Is(err, journal.ErrHangs) {
		log.Warn("spans wait in memory", "error", err)
	} else if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	t := &Telemetry{Journal: j, endTime: endTime, sandbox: id.Sandbox, slow: time.Duration(cfg.Export.SlowStart)}
	t.Keeper = export.NewKeeper(cfg, func(format string, args ...any) { log.Warn(fmt.Sprintf(format, args...)) })
	t.pod = &latePod{Client: t.Keeper.Client(j), sandbox: id.Sandbox}
	t.Queue = export.NewQueue(t.pod)
	t.Queue.Waiting = waiting
	t.own = export.NewQueue(t.pod)
	t.own.Waiting = waiting
	t.own.Resource = export.NewResource(filepath.Base(id.Inner), cfg.Resource, id.Attributes()...)
	t.Provider = export.NewTracerProvider(cfg.Trace, t.own)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("tracing", "error", err) }))
	t.Tracer = t.Provider.Tracer(names.ShimScope)
	return t, nil
}

// Started tells the journal that the sandbox's spans are worth more than others' if its
// start was slow, or failed.
func (t *Telemetry) Started(took time.Duration, failure string) error {
	if failure == "" && took < t.slow {
		return nil
	}
	return t.Journal.Worth(t.sandbox)
}

// checkJournal returns why spans cannot be written, as far as that is known in time.
func checkJournal(j *journal.Journal) error {
	return j.Within(state.DiskTime, func() error {
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
	// FlushTime bounds how long a span that more depends on may take to be written.
	FlushTime = 2 * time.Second
	// endTime bounds how long a process that ends waits for its spans to be written. Nobody
	// waits for it then. A file system that is frozen for a snapshot is back in a few
	// seconds; a process that ends earlier loses its spans.
	endTime = time.Minute
)

// FlushOwn writes the provider's spans that have ended to the journal.
func (t *Telemetry) FlushOwn(ctx context.Context) error { return t.own.Wait(ctx) }

// Flush writes what has ended to the journal. What others have put into the queue has
// been waiting for the disk alone.
func (t *Telemetry) Flush(ctx context.Context) error {
	return errors.Join(t.own.Wait(ctx), t.Queue.Wait(ctx))
}

// Close writes out what is left, and waits as long as linger for a shipper that is
// about to be replaced. A disk that hangs does not keep it.
func (t *Telemetry) Close(log *slog.Logger, linger time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), t.endTime)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- t.Queue.Stop(ctx) }()
	if err := errors.Join(t.own.Stop(ctx), <-stopped); err != nil {
		log.Warn("spans were lost at exit", "error", err)
	}
	if err := t.Journal.Within(state.CloseTime, t.Journal.Close); err != nil {
		log.Warn("close the journal", "error", err)
	}
	state.Within(linger+state.CloseTime, func() { t.Keeper.Close(linger) })
}
