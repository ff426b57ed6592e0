package forward

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// dump prints spans as they come.
type dump struct {
	*forwarder.Forwarder
	o   *Options
	out io.Writer

	mu     sync.Mutex
	sent   uint64
	err    error
	failed chan struct{} // closed once err is set
}

func newDump(o *Options, out io.Writer) *dump {
	d := &dump{o: o, out: out, failed: make(chan struct{})}
	d.Forwarder = forwarder.New(forwarder.Options{Sink: d, Limits: agentconfig.Limits(o.Config.Agent)})
	return d
}

var _ forwarder.Sink = (*dump)(nil)

// Span implements forwarder.Sink.
func (d *dump) Span(conn forwarder.ConnInfo, span *span.Span) {
	m := new(tracepb.Span)
	err := proto.Unmarshal(span.AppendOTLP(nil), m)
	var line bytes.Buffer
	if err == nil {
		err = waterfall.WriteJSON(&line, []*tracepb.ResourceSpans{{
			Resource:   d.o.resource(conn.Origin),
			ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: names.AgentScope}, Spans: []*tracepb.Span{m}}},
		}})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return
	}
	if err == nil {
		_, err = d.out.Write(line.Bytes())
	}
	if err != nil {
		d.err = fmt.Errorf("print a span: %w", err)
		close(d.failed)
		return
	}
	d.sent++
}

// Closed implements forwarder.Sink.
func (d *dump) Closed(forwarder.ConnInfo, error) {}

// Run implements intake.
func (d *dump) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.failed:
		return d.err
	}
}

// Status implements intake.
func (d *dump) Status() status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := status{Snapshot: d.Snapshot()}
	s.Sent = d.sent
	return s
}
