package export

import (
	"context"
	"os"
	"path/filepath"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/keeper"
)

// Linger is long enough for Close to see a process replaced that just died.
const Linger = keeper.Linger

// CollectDir is the directory that relays and "shimtrace collect" share.
func CollectDir(cfg config.Config) string { return filepath.Join(cfg.Relay.StateDir, "collect") }

// CollectLock is the file whose lock that process holds.
func CollectLock(cfg config.Config) string { return filepath.Join(CollectDir(cfg), "lock") }

// collectProcess is what logs call it.
const collectProcess = "collecting process"

// awaitedEvery is how often the process is pinged while runtimes wait for it.
const awaitedEvery = 250 * time.Millisecond

// GuardCollect has the process that collects for the relays of a state directory ended
// when it does not answer, until ctx is done; killing is called before. The relays start
// the next one.
func GuardCollect(ctx context.Context, stateDir string, killing func(answer string) (stuck func()), logf func(format string, args ...any)) {
	cfg := config.Config{Relay: config.Relay{StateDir: stateDir}}
	k := keeper.New(keeper.Options{
		Lock: CollectLock(cfg), Every: awaitedEvery, Awaited: true, Killing: killing, Name: collectProcess, Logf: logf,
	})
	defer k.Close(0)
	k.Guard(ctx)
}

// Keeper sees to it that a process ships the journal to the collector, and receives the
// spans of Kata's runtimes: the operator's tool, as "shimtrace collect", detached, one
// per host. Any number of processes may look after it at once.
type Keeper struct {
	*keeper.Keeper
	opts  keeper.Options
	ships bool
}

// NewKeeper returns the Keeper for a configuration. What hinders it is logged
// with logf, once for each cause.
func NewKeeper(cfg config.Config, logf func(format string, args ...any)) *Keeper {
	opts := keeper.Options{
		Lock:    CollectLock(cfg),
		Program: func() (string, error) { return keeper.Find(cfg.Export.Shipper, "export.shipper") },
		Args:    []string{"collect"},
		Without: "no spans are shipped",
		Name:    collectProcess,
		Logf:    logf,
	}
	return &Keeper{Keeper: keeper.New(opts), opts: opts, ships: cfg.Export.Endpoint != ""}
}

// Receive has the process receive runtimes' spans as well. It is left what listen
// returns unless lacks says that it has it; killing is called before it is killed, since
// it does not answer while runtimes wait for it. It is called before anything else.
func (k *Keeper) Receive(listen func() ([]*os.File, error), lacks func(answer string) bool, killing func(answer string) (stuck func())) {
	k.opts.Files, k.opts.Lacks, k.opts.Killing = listen, lacks, killing
	k.opts.Every, k.opts.Awaited = awaitedEvery, true
	if k.opts.Without = "no spans come from Kata's runtimes"; k.ships {
		k.opts.Without += ", and none are shipped"
	}
	k.Keeper = keeper.New(k.opts)
}

// EnsureShipped starts the process if there is an endpoint and none runs. It is cheap
// while one runs, so it is called after every append: one that found nothing for a
// while has ended.
func (k *Keeper) EnsureShipped() {
	if k.ships {
		k.Ensure()
	}
}

// Client returns the journal with EnsureShipped after every append of spans.
func (k *Keeper) Client(j *journal.Journal) Client { return Client{j, k} }

// Client is a journal that is shipped.
type Client struct {
	*journal.Journal
	keeper *Keeper
}

// UploadTraces implements [otlptrace.Client].
func (c Client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	err := c.Journal.UploadTraces(ctx, spans)
	c.keeper.EnsureShipped()
	return err
}

// AppendSpans implements [Spans].
func (c Client) AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error {
	err := c.Journal.AppendSpans(resource, scope, spans, n)
	c.keeper.EnsureShipped()
	return err
}
