package middleware_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/testkit"
	"github.com/shimtrace/shimtrace/middleware"
)

func TestSwitch(t *testing.T) {
	var sw middleware.Switch
	for i, turn := range []struct{ to, changed bool }{{false, false}, {true, true}, {true, false}, {false, true}, {true, true}} {
		if changed := sw.Set(turn.to); changed != turn.changed || sw.On() != turn.to {
			t.Errorf("turn %d to %v: changed %v, on %v", i, turn.to, changed, sw.On())
		}
	}
}

// What passes while tracing is switched off, passes as it came.
func TestSwitchedOffForwardsAsItCame(t *testing.T) {
	provider, rec := recorder()
	w := connect(t, provider, propagators("tracecontext", "baggage", "b3"), middleware.WithSwitch(new(middleware.Switch)),
		middleware.WithObserver(rooted{newDiary()}))
	var in []byte
	for i := range uint32(5) {
		r := state(int(i) * 3000)
		r.Metadata = []*ttrpc.KeyValue{{Key: "traceparent", Value: carrying(callerSpan)["traceparent"][0]}}
		in = append(in, request(2*i+1, r)...)
	}
	if got := exchange(t, w.client, w.server, in, func() int { return 1 << 30 }); !bytes.Equal(got, in) {
		t.Errorf("%d bytes became %d", len(in), len(got))
	}
	w.server.Close()
	w.wait(t)
	ended(t, rec, 0)
}

// held has a server answer Create and Wait when it is told to.
type held struct {
	came   chan struct{}
	answer chan struct{}
}

func holding() *held { return &held{make(chan struct{}), make(chan struct{})} }

// intercept is a server's interceptor.
func (h *held) intercept(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
	if strings.HasSuffix(info.FullMethod, "/Create") || strings.HasSuffix(info.FullMethod, "/Wait") {
		h.came <- struct{}{}
		<-h.answer
	}
	return method(ctx, unmarshal)
}

// Calls that are under way when tracing is switched have their whole span, with a
// mark, if it has been on at any time.
func TestSwitchedUnderWay(t *testing.T) {
	begun, after := string(middleware.BegunBeforeOnKey), string(middleware.EndedAfterOffKey)
	for name, tt := range map[string]struct {
		before bool
		turns  []bool // while the call is under way
		want   []string
		none   bool
	}{
		"off":                 {none: true},
		"on":                  {before: true},
		"switched on":         {turns: []bool{true}, want: []string{begun}},
		"switched off":        {before: true, turns: []bool{false}, want: []string{after}},
		"on and off":          {turns: []bool{true, false}, want: []string{begun, after}},
		"off and on":          {before: true, turns: []bool{false, true}, want: []string{after}},
		"on, off, on":         {turns: []bool{true, false, true}, want: []string{begun, after}},
		"off, on, off, again": {before: true, turns: []bool{false, true, false}, want: []string{after}},
	} {
		for _, id := range []string{"box", "missing"} {
			t.Run(name+" "+id, func(t *testing.T) {
				h := holding()
				provider, rec := recorder()
				var sw middleware.Switch
				sw.Set(tt.before)
				d := newDiary()
				addr, stop := relay(t, server(t, ttrpc.WithUnaryServerInterceptor(h.intercept)), provider, propagators("tracecontext"),
					middleware.WithSwitch(&sw), middleware.WithObserver(rooted{d}))
				c := client(t, addr)
				done := make(chan error, 1)
				go func() {
					done <- c.Call(context.Background(), taskService, "Create", &task.CreateTaskRequest{ID: id}, new(task.CreateTaskResponse))
				}()
				<-h.came
				called := time.Now()
				for _, to := range tt.turns {
					sw.Set(to)
				}
				switched := time.Now()
				close(h.answer)
				if err := <-done; (err != nil) != (id == "missing") {
					t.Errorf("answered %v", err)
				}
				c.Close()
				stop()
				if tt.none {
					ended(t, rec, 0)
					return
				}
				s := ended(t, rec, 1)[0]
				if s.Parent().SpanID() != sandboxSpan.SpanID() || s.SpanContext().TraceID() != sandboxSpan.TraceID() {
					t.Errorf("the span is under %v", s.Parent())
				}
				if s.StartTime().After(switched) || s.EndTime().Before(switched) || attrs(s)["container.id"] != id {
					t.Errorf("from %v to %v: %v", s.StartTime(), s.EndTime(), attrs(s))
				}
				from, late := attrs(s)[string(middleware.OriginalStartKey)].(int64)
				if late != slices.Contains(tt.want, begun) || late && (s.StartTime().Before(called) || from > called.UnixNano()) {
					t.Errorf("it begins at %v, the call was there at %v and says it began at %d", s.StartTime(), called, from)
				}
				var marks []string
				for _, key := range slices.Sorted(maps.Keys(attrs(s))) {
					if key == begun || key == after {
						marks = append(marks, key)
					}
				}
				if !slices.Equal(marks, tt.want) {
					t.Errorf("marked %q, want %q", marks, tt.want)
				}
				if told := d.told["answered Create"]; !told.SpanContext().Equal(s.SpanContext()) {
					t.Errorf("Answered was told of %v, the span is %v", told.SpanContext(), s.SpanContext())
				}
			})
		}
	}
}

func newDiary() *diary { return &diary{told: map[string]middleware.Call{}} }

// rooted is a diary with a parent for all.
type rooted struct{ *diary }

func (rooted) Parent(*middleware.Call) (parent, link trace.SpanContext) {
	return sandboxSpan, trace.SpanContext{}
}

// A quiet call is one also when it was under way.
func TestSwitchedUnderWayQuiet(t *testing.T) {
	for id, want := range map[string]int{"box": 0, "missing": 1} {
		h := holding()
		provider, rec := recorder()
		var sw middleware.Switch
		addr, stop := relay(t, server(t, ttrpc.WithUnaryServerInterceptor(h.intercept)), provider, middleware.WithSwitch(&sw), middleware.WithQuiet(0, "Wait"))
		c := client(t, addr)
		done := make(chan error, 1)
		go func() {
			done <- c.Call(context.Background(), taskService, "Wait", &task.WaitRequest{ID: id}, new(task.WaitResponse))
		}()
		<-h.came
		sw.Set(true)
		close(h.answer)
		<-done
		c.Close()
		stop()
		ended(t, rec, want)
	}
}

// A call that loses its connection has its span as well.
func TestSwitchedUnderWayLost(t *testing.T) {
	provider, rec := recorder()
	var sw middleware.Switch
	w := connect(t, provider, middleware.WithSwitch(&sw), middleware.WithObserver(rooted{newDiary()}))
	exchange(t, w.client, w.server, request(1, state(5)), func() int { return 1 << 30 })
	sw.Set(true)
	w.server.Close()
	w.wait(t)
	s := ended(t, rec, 1)[0]
	if got := attrs(s); got["error.type"] != "connection_closed" || got[string(middleware.BegunBeforeOnKey)] != true {
		t.Errorf("attributes %v", got)
	}
}

// Interceptors leave contexts alone while tracing is switched off.
func TestSwitchedInterceptors(t *testing.T) {
	var sw middleware.Switch
	opts := func() ([]middleware.Option, func() []sdktrace.ReadOnlySpan) {
		provider, rec := recorder()
		return []middleware.Option{provider, propagators("tracecontext"), middleware.WithSwitch(&sw)}, rec.Ended
	}
	serverOpts, served := opts()
	clientOpts, called := opts()
	c := interception(t, serverOpts, clientOpts)
	for _, on := range []bool{false, true, false} {
		sw.Set(on)
		before := len(called())
		seen := seenBy(t, c, carrying(callerSpan))
		untouched := len(seen["traceparent"]) == 1 && seen["traceparent"][0] == carrying(callerSpan)["traceparent"][0]
		if untouched == on {
			t.Errorf("on %v: the server sees %v", on, seen)
		}
		if n := len(called()) - before; (n == 1) != on || len(served()) != len(called()) {
			t.Errorf("on %v: %d spans of the client, in all %d, of the server %d", on, n, len(called()), len(served()))
		}
	}
}

// While thousands of calls fly, tracing is switched to and fro: each call has one
// span or none, each span has a root, and those calls have one during all of which it
// was on.
func TestSwitchInFlight(t *testing.T) {
	const callers, each = 16, 300
	w := &windows{panicking: new(panicking)}
	provider, rec := recorder()
	addr, stop := relay(t, server(t), provider, propagators("tracecontext"), middleware.WithSwitch(&w.sw), middleware.WithObserver(w))
	clients := []*ttrpc.Client{client(t, addr), client(t, addr), client(t, addr)}
	over := make(chan struct{})
	var during, apart, turns, made atomic.Int64 // calls begun and ended while it was on, or off
	// Tracing stays as it is until a call was made all the while, however slow calls are.
	until := func(calls *atomic.Int64) { testkit.Counts(calls, over) }
	var turning sync.WaitGroup
	turning.Go(func() {
		for {
			w.open()
			until(&during)
			w.sw.Set(false)
			turns.Add(1)
			select {
			case <-over:
				return
			default:
				until(&apart)
			}
		}
	})
	var calling sync.WaitGroup
	var must sync.Map
	for i := range callers {
		calling.Go(func() {
			for j := 0; j < each || (during.Load() == 0 || apart.Load() == 0) && !t.Failed(); j++ {
				id := fmt.Sprintf("c%d-%d", i, j)
				made.Add(1)
				before, turn := w.current(), turns.Load()
				err := clients[i%len(clients)].Call(context.Background(), taskService, "Create", &task.CreateTaskRequest{ID: id}, new(task.CreateTaskResponse))
				if err != nil {
					t.Error(err)
					return
				}
				switch after := w.current(); {
				case before != nil && before == after:
					during.Add(1)
					must.Store(id, true)
				case before == nil && after == nil && turn == turns.Load():
					apart.Add(1)
				}
			}
		})
	}
	calling.Wait()
	close(over)
	turning.Wait()
	for _, c := range clients {
		c.Close()
	}
	stop()

	had := map[string]bool{}
	for _, s := range rec.Ended() {
		id, _ := attrs(s)["container.id"].(string)
		if had[id] {
			t.Errorf("call %s has two spans", id)
		}
		had[id] = true
		if _, ok := w.roots.Load(s.Parent().SpanID()); !ok {
			t.Errorf("call %s is under %v, which is no root that was there", id, s.Parent())
		}
	}
	must.Range(func(id, _ any) bool {
		if !had[id.(string)] {
			t.Errorf("call %s has no span, though tracing was on from its begin to its end", id)
		}
		return true
	})
	if during.Load() == 0 || int64(len(had)) == made.Load() {
		t.Errorf("of %d calls %d were made while tracing was on, %d have a span: nothing was tried", made.Load(), during.Load(), len(had))
	}
}

// windows is an observer with a root for each time that tracing is switched on.
type windows struct {
	*panicking
	sw    middleware.Switch
	roots sync.Map // by id
	now   atomic.Pointer[trace.SpanContext]
	n     uint16
}

func (w *windows) open() {
	w.n++
	root := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1, byte(w.n >> 8), byte(w.n)}, SpanID: trace.SpanID{1, byte(w.n >> 8), byte(w.n)}, TraceFlags: trace.FlagsSampled,
	})
	w.roots.Store(root.SpanID(), true)
	w.now.Store(&root)
	w.sw.Set(true)
}

// current returns the root if tracing is on: who is told of the same one twice knows
// that tracing was on in between.
func (w *windows) current() *trace.SpanContext {
	if root := w.now.Load(); w.sw.On() && w.now.Load() == root {
		return root
	}
	return nil
}

func (w *windows) Parent(*middleware.Call) (parent, link trace.SpanContext) {
	return *w.now.Load(), trace.SpanContext{}
}
