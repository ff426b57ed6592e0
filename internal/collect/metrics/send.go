package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/client"
	"github.com/shimtrace/shimtrace/internal/status"
)

// Sender sends metrics while it runs. Whatever fails costs metrics, and nothing else.
type Sender struct {
	// Version is the program's.
	Version string
	// Warn is told once why metrics are not sent, and again when that has changed.
	Warn func(error)

	mu   sync.Mutex
	stop context.CancelFunc
	over chan struct{} // closed when the last loop has ended; nil: there was none
}

const (
	// lookTime bounds a picture.
	lookTime = time.Second
	// lastTime bounds the last upload.
	lastTime = 2 * time.Second
	scope    = "github.com/shimtrace/shimtrace/collect"
)

// Sends reports whether metrics are sent anywhere.
func Sends(cfg config.Config) bool {
	_, ok := cfg.MetricsTarget()
	return ok
}

// Follow sends metrics from now on as the configurations say, of which the common one is the
// first. It ends what an earlier call began.
func (s *Sender) Follow(all []config.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.over
	if before != nil {
		s.stop()
	}
	if all[0].Metrics.Send != "on" {
		return
	}
	to, ok := all[0].MetricsTarget()
	if !ok {
		s.Warn(errors.New("no metrics are sent: send of [metrics] is on, and no target of [export] speaks OTLP, nor does the environment name one for metrics"))
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan struct{})
	s.stop, s.over = stop, over
	go func() {
		defer close(over)
		if before != nil {
			<-before
		}
		if err := s.run(ctx, all, to); err != nil {
			s.Warn(fmt.Errorf("no metrics are sent: %w", err))
		}
	}()
}

// Close sends what there is a last time. A disk that hangs does not keep it.
func (s *Sender) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		return
	}
	s.stop()
	select {
	case <-s.over:
	case <-time.After(lookTime + 2*lastTime):
	}
}

// run sends metrics until ctx is done, and then once more.
func (s *Sender) run(ctx context.Context, all []config.Config, to config.Target) error {
	c, err := client.NewMetrics(to)
	if err != nil {
		return err
	}
	r := &reader{looker: &status.Looker{StateDir: all[0].Relay.StateDir, Journals: all, Wait: lookTime}, began: time.Now(), warn: s.Warn}
	r.resource = resourceOf(all[0], s.Version)
	defer r.close()
	said := ""
	send := func(ctx context.Context) {
		err := c.Export(ctx, r.read(ctx))
		if errors.Is(ctx.Err(), context.Canceled) {
			return // it is sent again, for the last time
		}
		if err == nil {
			said = ""
			return
		}
		cause := err.Error()
		var known interface{ Cause() string }
		if errors.As(err, &known) {
			cause = known.Cause()
		}
		if cause != said {
			s.Warn(err)
			said = cause
		}
	}
	tick := time.NewTicker(time.Duration(all[0].Metrics.Interval))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
			defer cancel()
			send(last)
			c.Close(last)
			return nil
		case <-tick.C:
			send(ctx)
		}
	}
}

// resourceOf returns the resource of the metrics: this process, on this host.
func resourceOf(cfg config.Config, version string) *resource.Resource {
	attrs := []attribute.KeyValue{semconv.ServiceName("shimtrace"), semconv.ServiceVersion(cmp.Or(version, "unknown"))}
	if host, err := os.Hostname(); err == nil {
		attrs = append(attrs, semconv.HostName(host))
	}
	for k, v := range cfg.Resource {
		attrs = append(attrs, attribute.String(k, v))
	}
	return resource.NewWithAttributes(semconv.SchemaURL, attrs...)
}

// reader gathers the metrics that are sent.
type reader struct {
	looker   *status.Looker
	meters   []*Meter
	began    time.Time
	resource *resource.Resource
	warn     func(error)
}

// read returns the metrics of this moment.
func (r *reader) read(ctx context.Context) *metricdata.ResourceMetrics {
	p := r.looker.Look(ctx)
	b := newBatch(p.Time)
	b.addPicture(&p, r.began)
	lost := make(map[string]map[string]int)
	for _, j := range p.Journals {
		lost[j.Dir] = j.Lost
	}
	r.open()
	for i, m := range r.meters {
		r.warn(m.Read())
		m.lost(lost[m.dir])
		if i == 0 {
			m.reparented(reparented(&p))
			b.add(spanReparented, m.state.Since, m.state.Reparented)
		}
		b.addMeter(m)
		r.warn(m.Save())
	}
	return &metricdata.ResourceMetrics{Resource: r.resource, ScopeMetrics: []metricdata.ScopeMetrics{{
		Scope: instrumentation.Scope{Name: scope, SchemaURL: semconv.SchemaURL}, Metrics: b.metrics(),
	}}}
}

// open opens the meters of the journals that exist by now.
func (r *reader) open() {
	for _, cfg := range r.looker.Journals {
		dir := cfg.Journal.Dir
		if slices.ContainsFunc(r.meters, func(m *Meter) bool { return m.dir == dir }) {
			continue
		}
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		m, err := OpenMeter(dir)
		r.warn(err)
		r.meters = append(r.meters, m)
	}
}

func (r *reader) close() {
	for _, m := range r.meters {
		m.Close()
	}
}

// reparented returns how many spans each relay's process says that it has reparented.
func reparented(p *status.Picture) map[string]uint64 {
	all := make(map[string]uint64)
	for _, r := range p.Relays {
		if f := r.Facts; f != nil && f.Reparented != nil {
			all[fmt.Sprintf("%s %d", r.Socket, f.PID)] = *f.Reparented
		}
	}
	return all
}
