package kata

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/middleware"
)

func TestMain(m *testing.M) { shimtest.Main(m) }

// pod is a sandbox with a trace, under whose root all calls are.
type pod struct {
	middleware.NopObserver
	state state.State
}

func newPod(t *testing.T, cfg config.Trace) *pod {
	return &pod{state: state.State{Version: state.Version, Trace: state.NewTraceContext(export.NewRoot(t.Context(), cfg)), Started: time.Now()}}
}

func (p *pod) Parent(c *middleware.Call) (parent, link trace.SpanContext) {
	if c.Caller.IsSampled() {
		return c.Caller, p.Root()
	}
	return p.Root(), c.Caller
}

func (p *pod) On() bool                               { return true }
func (p *pod) Root() trace.SpanContext                { return p.state.Trace.SpanContext() }
func (p *pod) Attributes(string) []attribute.KeyValue { return nil }
func (p *pod) Switch() *middleware.Switch             { return nil }
func (p *pod) Unrecorded(int)                         {}
func (p *pod) Changed()                               {}

var _ Sandbox = (*pod)(nil)

// unguarded is a Guard that keeps nothing.
type unguarded struct{}

func (unguarded) Store(guard.Entry)                 {}
func (unguarded) Remove(string)                     {}
func (unguarded) Name(kind string) string           { return kind }
func (unguarded) Claim(uint32)                      {}
func (unguarded) Handover(string) middleware.Option { return middleware.WithObserver() }
