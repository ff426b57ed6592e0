package forward

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/collect"
	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/client"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
	"github.com/shimtrace/shimtrace/middleware"
)

// store writes spans to the journal, and ships them if there is an endpoint.
type store struct {
	*forwarder.Forwarder
	o       *Options
	report  *console.Console
	journal *journal.Journal

	shipments *collect.Shipments // nil: there is no target
}

// maxVMs bounds the VMs whose spans are told apart at a time.
const maxVMs = 512

func openStore(o *Options, report *console.Console) (*store, error) {
	cfg := o.Config.Journal
	opts := export.JournalOptions(o.Config)
	opts.StateDir = "" // it is root's, and we may be another user
	j, err := journal.Open(cfg.Dir, opts)
	if err == nil {
		if err = unix.Access(cfg.Dir, unix.W_OK|unix.X_OK); err != nil {
			err = fmt.Errorf("journal: directory %s cannot be written to: %w", cfg.Dir, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w; name another one with --journal", err)
	}
	s := &store{o: o, report: report, journal: j}
	s.Forwarder = forwarder.New(forwarder.Options{
		Limits:       agentconfig.Limits(o.Config.Agent),
		Collation:    s.collation,
		KeepTraceIDs: o.KeepTraceIDs,
		MaxVMs:       maxVMs,
		Journal:      j,
		Warn:         report.Warn,
	})
	if !o.Config.Export.Ships() {
		report.Info("spans stay in the journal %s", cfg.Dir)
		return s, nil
	}
	for _, target := range o.Config.Export.All() {
		if _, err := client.New(target); err != nil {
			return nil, err
		}
		report.Info("spans go to the journal %s, and from there to %s", cfg.Dir, target.Endpoint)
	}
	s.shipments = collect.NewShipments(report)
	s.shipments.Follow([]config.Config{o.Config}, 0)
	return s, nil
}

// collation returns the options for a VM's spans. Each trace is isolated, since nothing
// is known of what caused it.
func (s *store) collation(from listen.Origin) collate.Options {
	o := agentconfig.Isolated(s.o.Config)
	o.Resource = s.o.resource(from)
	return o
}

// resource returns the resource of an origin's spans.
func (o *Options) resource(from listen.Origin) *resourcepb.Resource {
	who := attribute.Int64(names.CID, int64(from.CID))
	if from.Sandbox != "" {
		who = middleware.SandboxIDKey.String(from.Sandbox)
	}
	// Mistakes in OTEL_RESOURCE_ATTRIBUTES are left out.
	return export.NewResource(o.Name, o.Config.Resource, who)
}

// Run implements intake.
func (s *store) Run(ctx context.Context) error {
	s.Forwarder.Run(ctx)
	return nil
}

// Close implements intake.
func (s *store) Close(ctx context.Context) error {
	err := s.Forwarder.Close(ctx)
	err = errors.Join(err, s.journal.Flush())
	if s.shipments != nil {
		s.shipments.Close()
	}
	return errors.Join(err, s.journal.Close())
}

// Status implements intake.
func (s *store) Status() status {
	st := status{Snapshot: s.Snapshot(), journal: s.o.Config.Journal.Dir}
	if s.shipments != nil {
		st.shipped = s.shipments.Shipped()
	}
	return st
}
