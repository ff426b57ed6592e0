package relay

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/internal/testkit"
	"github.com/shimtrace/shimtrace/middleware"
)

// relayed starts a shim that answers Pause, and a relay in front of it that goes by
// a switcher and writes to a journal. It returns the sandbox, a client's connection to
// the relay, and what ends it all.
func relayed(t *testing.T, cfg config.Config) (s *sandbox, dial func() *ttrpc.Client, end func()) {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	tel, err := telemetry.Open(cfg, state.Identity{Sandbox: "box", Inner: "containerd-shim-x-v2"}, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	st := state.State{Version: state.Version, Dynamic: true, Trace: state.NewTraceContext(export.NewRoot(t.Context(), cfg.Trace)), Started: time.Now()}
	s = newSandbox(tel.Tracer, tel.FlushOwn, log, st, filepath.Join(dir, "state.json"), false)
	s.switcher = newSwitcher(s, cfg.Trace, "dynamic")

	relay := middleware.NewRelay(middleware.WithSwitch(s.Switch()), middleware.WithTracerProvider(tel.Provider), middleware.WithObserver(s))
	dial, hangUp := serveCalls(t, dir, relay, "Pause")
	end = func() {
		hangUp()
		s.switcher.close()
		tel.Close(log, 0)
	}
	return s, dial, end
}

// serveCalls serves, in a directory, a shim that answers methods, and a relay in front of it.
// It returns a client's connection to the relay, and what ends all of them.
func serveCalls(t *testing.T, dir string, relay *middleware.Relay, methods ...string) (dial func() *ttrpc.Client, end func()) {
	t.Helper()
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	answers := make(map[string]ttrpc.Method)
	for _, name := range methods {
		answers[name] = func(_ context.Context, unmarshal func(any) error) (any, error) {
			return &emptypb.Empty{}, unmarshal(new(task.PauseRequest))
		}
	}
	server.Register("containerd.task.v3.Task", answers)
	inner, front := shimtest.Listen(t, filepath.Join(dir, "inner")), shimtest.Listen(t, filepath.Join(dir, "front"))
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(context.Background(), inner) })
	running.Go(func() {
		_ = relay.Serve(context.Background(), front, func(context.Context) (net.Conn, error) { return state.Dial(inner.Addr().String()) })
	})
	var mu sync.Mutex
	var clients []*ttrpc.Client
	dial = func() *ttrpc.Client {
		conn, err := state.Dial(front.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		clients = append(clients, ttrpc.NewClient(conn))
		return clients[len(clients)-1]
	}
	end = func() {
		for _, c := range clients {
			c.Close()
		}
		front.Close()
		server.Close()
		running.Wait()
	}
	return dial, end
}

func pause(c *ttrpc.Client, id string) error {
	return c.Call(context.Background(), "containerd.task.v3.Task", "Pause", &task.PauseRequest{ID: id}, new(emptypb.Empty))
}

// journaled is a journal as one reads it from its beginning.
type journaled struct {
	roots map[string]bool   // of traces, as they came
	calls map[string]string // by container, the trace of its call
	marks map[string]int
	ends  map[string]int // by trace
}

func readJournal(t *testing.T, dir string) journaled {
	t.Helper()
	j := journaled{make(map[string]bool), make(map[string]string), make(map[string]int), make(map[string]int)}
	_, err := journal.Scan(dir, func(r journal.Record) error {
		if r.Kind != journal.KindTraces {
			return fmt.Errorf("a record of kind %v", r.Kind)
		}
		td, err := r.Traces()
		if err != nil {
			return err
		}
		for _, rs := range td.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, span := range ss.Spans {
					id := string(span.TraceId)
					if span.Name == names.SwitchedOn {
						if j.roots[id] {
							t.Error("a root is there twice")
						}
						j.roots[id] = true
						continue
					}
					if !j.roots[id] {
						t.Errorf("%s is there before its root", span.Name)
					}
					if span.Name == names.SwitchedOff {
						j.ends[id]++
						continue
					}
					for _, a := range span.Attributes {
						switch a.Key {
						case "container.id":
							box := a.Value.GetStringValue()
							if j.calls[box] != "" {
								t.Errorf("call %s is there twice", box)
							}
							j.calls[box] = id
						case string(middleware.BegunBeforeOnKey), string(middleware.EndedAfterOffKey):
							j.marks[a.Key]++
						}
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// While thousands of calls fly, tracing is switched on and off. In the journal every
// trace begins with its root and has one end, no call is there twice, and none is
// missing that was made while tracing was on.
func TestSwitchingInFlight(t *testing.T) {
	const callers, each = 8, 400
	cfg := config.Default()
	cfg.Journal.Dir = t.TempDir()
	s, dial, end := relayed(t, cfg)
	over := make(chan struct{})
	var turning, calling sync.WaitGroup
	windows := 0
	var during, apart, made atomic.Int64 // calls begun and ended while it was on, or off
	// Tracing stays as it is until a call was made all the while, however slow calls are.
	until := func(calls *atomic.Int64) { testkit.Counts(calls, over) }
	turning.Go(func() {
		for {
			if changed, err := s.switcher.on(alice, time.Hour); err != nil || !changed {
				t.Errorf("on: %v, %v", changed, err)
			}
			windows++
			until(&during)
			s.switcher.off(alice)
			select {
			case <-over:
				return
			default:
				until(&apart)
			}
		}
	})
	var mu sync.Mutex
	within := map[string]string{} // calls made within a window, and its trace
	current := func() *state.Window {
		if w := s.window(); w != nil && w.Ended.IsZero() && s.On() {
			return w
		}
		return nil
	}
	for i := range callers {
		c := dial()
		calling.Go(func() {
			for n := 0; n < each || (during.Load() == 0 || apart.Load() == 0) && !t.Failed(); n++ {
				id := fmt.Sprintf("c%d-%d", i, n)
				made.Add(1)
				before := current()
				if err := pause(c, id); err != nil {
					t.Error(err)
					return
				}
				// The window is replaced when anything about it changes.
				switch after := current(); {
				case before != nil && before == after:
					mu.Lock()
					trace := before.Trace.SpanContext().TraceID()
					within[id] = string(trace[:])
					mu.Unlock()
					during.Add(1)
				case before == nil && after == nil:
					apart.Add(1)
				}
			}
		})
	}
	calling.Wait()
	close(over)
	turning.Wait()
	end()

	j := readJournal(t, cfg.Journal.Dir)
	if len(j.roots) != windows || len(j.ends) != windows {
		t.Errorf("%d windows, %d roots, %d ends", windows, len(j.roots), len(j.ends))
	}
	for box, trace := range within {
		if j.calls[box] != trace {
			t.Errorf("call %s was made within a window, but is not in its trace", box)
		}
	}
	if len(within) == 0 || int64(len(j.calls)) == made.Load() {
		t.Errorf("nothing was tried: %d calls within windows, %d of %d recorded, marks %v", len(within), len(j.calls), made.Load(), j.marks)
	}
	t.Logf("%d windows, %d calls within, %d of %d recorded, marks %v", windows, len(within), len(j.calls), made.Load(), j.marks)
}

// While it is off, nothing is written: the journal has no segment.
func TestNothingIsWrittenWhileOff(t *testing.T) {
	cfg := config.Default()
	cfg.Journal.Dir = t.TempDir()
	s, dial, end := relayed(t, cfg)
	c := dial()
	for i := range 100 {
		if err := pause(c, fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	s.switcher.off(alice)
	end()
	if segments, _ := filepath.Glob(filepath.Join(cfg.Journal.Dir, "*.seg")); len(segments) > 0 {
		t.Errorf("the journal has %q", segments)
	}
}

// A trace that the sampler has not chosen has no spans.
func TestWindowThatIsNotSampled(t *testing.T) {
	cfg := config.Default()
	cfg.Journal.Dir = t.TempDir()
	cfg.Trace.Sampler, cfg.Trace.SamplerArg = "parentbased_traceidratio", 0
	s, dial, end := relayed(t, cfg)
	if changed, err := s.switcher.on(alice, 0); err != nil || !changed || s.Root().IsSampled() {
		t.Errorf("changed %v, sampled %v, %v", changed, s.Root().IsSampled(), err)
	}
	if err := pause(dial(), "c1"); err != nil {
		t.Fatal(err)
	}
	end()
	if segments, _ := filepath.Glob(filepath.Join(cfg.Journal.Dir, "*.seg")); len(segments) > 0 {
		t.Errorf("the journal has %q", segments)
	}
}
