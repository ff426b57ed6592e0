package export

import (
	"context"
	"path/filepath"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/keeper"
)

// Linger is long enough for Close to see a shipper replaced that just died.
const Linger = keeper.Linger

// Keeper sees to it that a process ships the journal to the collector: the
// operator's tool, as "shimtrace ship --journal DIR", detached, one per host. Any
// number of processes may look after it at once.
type Keeper struct {
	*keeper.Keeper
	wanted bool
}

// NewKeeper returns the Keeper for a configuration. What hinders it is logged
// with logf, once for each cause.
func NewKeeper(cfg config.Config, logf func(format string, args ...any)) *Keeper {
	args := []string{"ship", "--journal", cfg.Journal.Dir}
	if cfg.Runtime != "" {
		args = append(args, "--runtime", cfg.Runtime)
	}
	return &Keeper{wanted: cfg.Export.Endpoint != "", Keeper: keeper.New(keeper.Options{
		Lock:    filepath.Join(cfg.Journal.Dir, journal.ShipLockName),
		Program: func() (string, error) { return keeper.Find(cfg.Export.Shipper, "export.shipper") },
		Args:    args,
		Without: "no spans are shipped",
		Name:    "shipper",
		Logf:    logf,
	})}
}

// Ensure starts a shipper if there is an endpoint and none runs. It is cheap while
// one runs, so it is called after every append: a shipper that found nothing for a
// while has ended.
func (k *Keeper) Ensure() {
	if k.wanted {
		k.Keeper.Ensure()
	}
}

// Client returns the client with Ensure after every upload.
func (k *Keeper) Client(c otlptrace.Client) otlptrace.Client { return keptClient{c, k} }

type keptClient struct {
	otlptrace.Client
	keeper *Keeper
}

// UploadTraces implements [otlptrace.Client].
func (c keptClient) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	err := c.Client.UploadTraces(ctx, spans)
	c.keeper.Ensure()
	return err
}
