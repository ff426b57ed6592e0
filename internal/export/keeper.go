package export

import (
	"context"
	"os"
	"path/filepath"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/keeper"
)

// Linger is how long Close must wait to replace a process that has just died.
const Linger = keeper.Linger

// CollectDir is the directory that relays and "shimtrace collect" share.
func CollectDir(cfg config.Config) string { return filepath.Join(cfg.Relay.StateDir, "collect") }

// CollectLock is the file that "shimtrace collect" keeps locked.
func CollectLock(cfg config.Config) string { return filepath.Join(CollectDir(cfg), "lock") }

// collectProcess is the name in logs of the process that runs "shimtrace collect".
const collectProcess = "collecting process"

// awaitedEvery is how often the process is pinged while runtimes wait for it.
const awaitedEvery = 250 * time.Millisecond

// GuardCollect watches the collecting process of a state directory until ctx is done,
// and kills it when it does not answer. killing is called first. The relays start the
// next one.
func GuardCollect(ctx context.Context, stateDir string, killing func(answer string) (stuck func()), logf func(format string, args ...any)) {
	cfg := config.Config{Relay: config.Relay{StateDir: stateDir}}
	k := keeper.New(keeper.Options{
		Lock: CollectLock(cfg), Every: awaitedEvery, Awaited: true, Killing: killing, Name: collectProcess, Logf: logf,
	})
	defer k.Close(0)
	k.Guard(ctx)
}

// Keeper makes sure that a process ships the journal to the collector, receives the spans of
// Kata's runtimes and is the host's OTLP endpoint. That process is the operator's tool, run
// detached as "shimtrace collect", one per host. Any number of processes may keep it at once.
type Keeper struct {
	*keeper.Keeper
	opts  keeper.Options
	ships bool // there is a collector
	otlp  bool // the host has an OTLP endpoint
}

// NewKeeper returns the Keeper for a configuration. It logs what hinders it with logf,
// once for each cause.
func NewKeeper(cfg config.Config, logf func(format string, args ...any)) *Keeper {
	opts := keeper.Options{
		Lock:    CollectLock(cfg),
		Program: func() (string, error) { return keeper.Find(cfg.Export.Shipper, "export.shipper") },
		Args:    []string{"collect"},
		Without: "no spans are shipped",
		Name:    collectProcess,
		Logf:    logf,
	}
	k := &Keeper{opts: opts, ships: cfg.Export.Ships(), otlp: len(cfg.OTLP.Listen) > 0}
	if k.otlp && !k.ships {
		k.opts.Without = "there is no OTLP endpoint"
	}
	k.Keeper = keeper.New(k.opts)
	return k
}

// Receive makes the process receive the runtimes' spans as well. If lacks reports, by the
// process's answer, that it has no files to receive them from, it is given those that listen
// returns. If it does not answer while runtimes wait for it, killing is called and it is killed.
// Receive must be called before any other method.
func (k *Keeper) Receive(listen func() ([]*os.File, error), lacks func(answer string) bool, killing func(answer string) (stuck func())) {
	k.opts.Files, k.opts.Lacks, k.opts.Killing = listen, lacks, killing
	k.opts.Every, k.opts.Awaited = awaitedEvery, true
	if k.opts.Without = "no spans come from Kata's runtimes"; k.ships {
		k.opts.Without += ", and none are shipped"
	}
	k.Keeper = keeper.New(k.opts)
}

// EnsureShipped starts the process if there is a collector or an OTLP endpoint and none
// runs. It is called after every append, because an idle process ends; while one runs,
// the call is cheap.
func (k *Keeper) EnsureShipped() {
	if k.ships || k.otlp {
		k.Ensure()
	}
}

// Client returns the journal, calling EnsureShipped after every append of spans.
func (k *Keeper) Client(j *journal.Journal) Client { return Client{j, k} }

// Client is a journal that is shipped.
type Client struct {
	*journal.Journal
	keeper *Keeper
}

// AppendSpans implements [Spans].
func (c Client) AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error {
	err := c.Journal.AppendSpans(resource, scope, spans, n)
	c.keeper.EnsureShipped()
	return err
}
