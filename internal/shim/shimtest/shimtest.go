// Package shimtest has what the tests of the shim's packages share.
package shimtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/goleak"

	"github.com/shimtrace/shimtrace/internal/export/exporttest"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/shimname"
	"github.com/shimtrace/shimtrace/internal/testkit"
	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

// Main runs a package's tests, and fails if goroutines are left.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(built.dir)
		os.Exit(code)
	}))
}

// built is the program, which several tests run.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// Program returns the shim, built from this tree, beside the program that relays.
func Program(t *testing.T) string { return program(t, shimname.Program) }

// RelayProgram returns the program that relays.
func RelayProgram(t *testing.T) string { return program(t, shimname.RelayProgram) }

func program(t *testing.T, name string) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = tempdir.Make(); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", built.dir+"/", "github.com/shimtrace/shimtrace/cmd/"+shimname.Program, "github.com/shimtrace/shimtrace/cmd/"+shimname.RelayProgram)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as releases are
		out, err := build.CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("build the shim: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, name)
}

// Eventually waits until what holds.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	testkit.Until(t, what, holds)
}

// Want compares attributes, in their order, with "key=value".
func Want(t *testing.T, attrs []attribute.KeyValue, want ...string) {
	t.Helper()
	var got []string
	for _, a := range attrs {
		got = append(got, string(a.Key)+"="+a.Value.String())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Listen listens on a Unix socket, whose file stays.
func Listen(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	return l
}

// SpanNames returns the names of a journal's spans, as far as it can be read.
func SpanNames(dir string) (names []string) {
	_, _ = journal.Scan(dir, func(r journal.Record) error {
		td, err := r.Traces()
		if err != nil {
			return nil
		}
		for _, rs := range td.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					names = append(names, s.Name)
				}
			}
		}
		return nil
	})
	return names
}

// Spans records spans (a sink).
type Spans struct {
	exporttest.Recorder
	t *testing.T
}

// NewSpans returns a recorder of spans.
func NewSpans(t *testing.T) *Spans { return &Spans{t: t} }

// Named returns the spans with the name that have ended.
func (s *Spans) Named(name string) (found []sdktrace.ReadOnlySpan) {
	for _, span := range s.Ended() {
		if span.Name() == name {
			found = append(found, span)
		}
	}
	return found
}

// One returns the only span with the name.
func (s *Spans) One(name string) sdktrace.ReadOnlySpan {
	s.t.Helper()
	found := s.Named(name)
	if len(found) != 1 {
		s.t.Fatalf("%d spans %q", len(found), name)
	}
	return found[0]
}
