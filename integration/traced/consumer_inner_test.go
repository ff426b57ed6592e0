package traced_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// callerLink is what a call has in sandboxTree that nobody's span caused.
var callerLink = regexp.MustCompile(` ~ \(client .*`)

// TestInnerShimJoins wraps a shim that traces itself, by the context in the requests
// that reach it: of each call's span its own is the only child.
func TestInnerShimJoins(t *testing.T) {
	t.Parallel()
	tracedConfig := "[runtime.runc]\nshim = '" + tracingShim(t) + "'\n"
	for _, tt := range []struct {
		name, want string
		opts       traced.Options
	}{
		{"alone", callerLink.ReplaceAllString(sandboxTree, ""), traced.Options{
			Options: rig.Options{Version: rig.V24},
			Config:  unhurried + tracedConfig + "[export]\nendpoint = 'http://" + httpAddr + "'\n",
		}},
		{"caller, join sandbox, all forms", sandboxTree, selfTraced(unhurried + "join = 'sandbox'\npropagators = ['b3', 'jaeger', 'b3multi', 'baggage', 'tracecontext']\n" + tracedConfig)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := collect(t, tt.opts)
			names := podOfOne(c)
			spans := c.complete()
			wantTree(t, rig.V24, tt.want, spans, names...)
			// It exports what it has by itself.
			problem := ""
			_, _ = c.recv.Wait(time.Minute, func(spans []otlprecv.Span) bool {
				problem = innerProblem(withoutPolls(spans))
				return problem == ""
			})
			if problem != "" {
				t.Error(problem)
			}
		})
	}
}

// innerProblem says which call was not traced by the inner shim too, below our span
// of it, or what else was.
func innerProblem(spans []otlprecv.Span) string {
	inner := make(map[string][]otlprecv.Span) // by parent
	n := 0
	for _, s := range spans {
		if s.Kind == tracepb.Span_SPAN_KIND_SERVER && s.Scope == "github.com/containerd/otelttrpc" && s.Service() != "containerd" {
			inner[s.ParentID] = append(inner[s.ParentID], s)
			n++
		}
	}
	for _, s := range spans {
		if s.Scope != "github.com/shimtrace/shimtrace/middleware" {
			continue
		}
		below := inner[s.ID]
		n -= len(below)
		switch {
		case len(below) == 0 && strings.HasSuffix(s.Name, "/Shutdown"):
			// The last one ends the shim before it has exported it.
		case len(below) != 1 || below[0].TraceID != s.TraceID || below[0].Name != s.Name:
			return fmt.Sprintf("below %s of %v are the inner shim's %v", s.Name, s.Attrs["container.id"], below)
		}
	}
	if n != 0 {
		return fmt.Sprintf("%d spans of the inner shim are not below a call", n)
	}
	return ""
}

// tracingShim is runc's shim, built with its tracing, and told of the collector by
// nobody else.
func tracingShim(t *testing.T) string {
	root, err := toolset.Root()
	check(t, err)
	real := filepath.Join(toolset.TracingShim.Dir(root), "containerd-shim-runc-v2")
	script := filepath.Join(t.TempDir(), "containerd-shim-runc-v2")
	text := fmt.Sprintf("#!/bin/sh\nOTEL_EXPORTER_OTLP_ENDPOINT=http://%s OTEL_BSP_SCHEDULE_DELAY=50 exec %s \"$@\"\n", httpAddr, real)
	check(t, os.WriteFile(script, []byte(text), 0o755))
	return script
}
