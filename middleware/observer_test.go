package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shimtrace/shimtrace/middleware"
)

// diary is an observer that writes down what it is told, and annotates.
type diary struct {
	mu   sync.Mutex
	told map[string]middleware.Call
}

func (d *diary) note(what string, c *middleware.Call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told == nil {
		d.told = map[string]middleware.Call{}
	}
	d.told[what+" "+c.Method] = *c
}

func (d *diary) Parent(c *middleware.Call) (parent, link trace.SpanContext) {
	d.note("parent", c)
	return
}
func (d *diary) Forwarded(c *middleware.Call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told["forwarded "+c.Method] = middleware.Call{ContainerID: c.ContainerID, Caller: c.SpanContext()}
}
func (d *diary) Began(c *middleware.Call)    { d.note("began", c) }
func (d *diary) Answered(c *middleware.Call) { d.note("answered", c) }
func (d *diary) Lost(c *middleware.Call)     { d.note("lost", c) }
func (d *diary) Annotate(c *middleware.Call, s trace.Span) {
	d.note("annotate", c)
	s.SetAttributes(attribute.String("pod", "nginx"))
}

func TestObserver(t *testing.T) {
	d := new(diary)
	provider, rec := recorder()
	addr, stop := relay(t, server(t), provider, propagators("tracecontext"),
		middleware.WithObserver(d), middleware.WithQuiet(0, "Wait"))
	c := client(t, addr)
	ctx := ttrpc.WithMetadata(context.Background(), carrying(callerSpan))
	for method, err := range map[string]error{
		"Create": c.Call(ctx, taskService, "Create", &task.CreateTaskRequest{ID: "box", Bundle: "/bundle"}, new(task.CreateTaskResponse)),
		"Wait":   c.Call(ctx, taskService, "Wait", &task.WaitRequest{ID: "box", ExecID: "sh"}, new(task.WaitResponse)),
	} {
		if err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
	c.Call(ctx, taskService, "Kill", &task.KillRequest{ID: "missing", Signal: 15}, new(emptypb.Empty))
	c.Close()
	stop()

	if got := d.told["parent Create"]; got.Service != taskService || got.ContainerID != "box" || got.Bundle != "/bundle" ||
		!got.Caller.Equal(callerSpan) || got.Stream || got.Quiet() || got.Start.IsZero() {
		t.Errorf("Parent was told %+v", got)
	}
	create := ended(t, rec, 2)[0]
	if got := d.told["began Create"]; !got.Parent.Equal(callerSpan) || got.ContainerID != "box" || !got.SpanContext().Equal(create.SpanContext()) {
		t.Errorf("Began was told %+v", got)
	}
	if got := d.told["forwarded Create"]; got.ContainerID != "box" || !got.Caller.Equal(create.SpanContext()) {
		t.Errorf("Forwarded was told %+v", got)
	}
	if got := d.told["answered Create"]; got.Code != 0 || got.PID != 42 || got.Exited || got.End.Before(got.Start) {
		t.Errorf("Answered was told %+v", got)
	}
	if attrs(create)["pod"] != "nginx" {
		t.Errorf("the span is not annotated: %v", attrs(create))
	}
	if got := d.told["answered Wait"]; !got.Quiet() || !got.Exited || got.ExitStatus != 137 || !got.ExitedAt.Equal(exitedAt) || got.ExecID != "sh" {
		t.Errorf("Answered was told %+v", got)
	}
	if got, ok := d.told["annotate Wait"]; ok {
		t.Errorf("Annotate was told of a call that is not recorded: %+v", got)
	}
	if got := d.told["answered Kill"]; got.Code.String() != "NOT_FOUND" || !strings.Contains(got.Message, "missing") || got.Signal != 15 {
		t.Errorf("Answered was told %+v", got)
	}
}

// TestObservers: several are told, and the first that has one names the parent.
func TestObservers(t *testing.T) {
	first, last := newDiary(), newDiary()
	provider, rec := recorder()
	addr, stop := relay(t, server(t), provider, propagators("tracecontext"),
		middleware.WithObserver(first, rooted{newDiary()}), middleware.WithObserver(knowing{parent: callerSpan}, last))
	c := client(t, addr)
	if err := c.Call(context.Background(), taskService, "Create", &task.CreateTaskRequest{ID: "box"}, new(task.CreateTaskResponse)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	stop()
	if s := ended(t, rec, 1)[0]; s.Parent().SpanID() != sandboxSpan.SpanID() {
		t.Errorf("the span is under %v, want %v", s.Parent(), sandboxSpan)
	}
	for name, d := range map[string]*diary{"first": first, "last": last} {
		for _, what := range []string{"began", "forwarded", "answered", "annotate"} {
			if _, told := d.told[what+" Create"]; !told {
				t.Errorf("the %s observer was not told: %s", name, what)
			}
		}
	}
}

// panicking is an observer that panics where it is told to, as often as it is
// told to.
type panicking struct {
	mu    sync.Mutex
	where string
	left  int
}

func (p *panicking) may(where string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.where == where && p.left > 0 {
		p.left--
		panic("in " + where)
	}
}

func (p *panicking) Parent(*middleware.Call) (parent, link trace.SpanContext) {
	p.may("Parent")
	return
}
func (p *panicking) Began(*middleware.Call)                { p.may("Began") }
func (p *panicking) Forwarded(*middleware.Call)            { p.may("Forwarded") }
func (p *panicking) Answered(*middleware.Call)             { p.may("Answered") }
func (p *panicking) Lost(*middleware.Call)                 { p.may("Lost") }
func (p *panicking) Annotate(*middleware.Call, trace.Span) { p.may("Annotate") }

func TestPanics(t *testing.T) {
	for where, tt := range map[string]struct {
		panics, spans, reported int
	}{
		"Parent once":     {1, 9, 1},
		"Parent twice":    {2, 0, 2},
		"Parent always":   {99, 0, 2},
		"Began once":      {1, 9, 1},
		"Began always":    {99, 0, 2},
		"Forwarded once":  {1, 10, 1},
		"Forwarded twice": {2, 2, 2},
		"Answered once":   {1, 9, 1},
		"Answered always": {99, 0, 2},
		"Annotate once":   {1, 9, 1},
		"Annotate always": {99, 0, 2},
	} {
		t.Run(where, func(t *testing.T) {
			var mu sync.Mutex
			var errs []error
			provider, rec := recorder()
			addr, stop := relay(t, server(t), provider, propagators("tracecontext"),
				middleware.WithObserver(&panicking{where: strings.Fields(where)[0], left: tt.panics}),
				middleware.WithErrorHandler(func(err error) {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					panic("and the handler panics as well")
				}))
			c := client(t, addr)
			for range 10 {
				// The answer is there before its span is ended: what is expected of the
				// next call is certain only once that is done.
				if err := c.Call(context.Background(), taskService, "Create", &task.CreateTaskRequest{ID: "box"}, new(task.CreateTaskResponse)); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
			stop()
			if n := len(rec.Ended()); n > tt.spans || n == 0 && tt.spans > 2 {
				t.Errorf("%d spans, want at most %d", n, tt.spans)
			}
			if len(errs) < tt.reported || len(errs) > tt.reported+1 || !strings.Contains(errs[0].Error(), "in "+strings.Fields(where)[0]) {
				t.Errorf("%d reports, want %d: %v", len(errs), tt.reported, errors.Join(errs...))
			}
		})
	}
}

// After a panic the frame goes on as it came.
func TestPanicForwardsAsItCame(t *testing.T) {
	provider, _ := recorder()
	w := connect(t, provider, propagators("tracecontext"), middleware.WithErrorHandler(func(error) {}),
		middleware.WithObserver(&panicking{where: "Parent", left: 99}))
	var in []byte
	for i := range uint32(5) {
		in = append(in, request(2*i+1, state(int(i)*3000))...)
	}
	if got := exchange(t, w.client, w.server, in, func() int { return 1 << 30 }); !bytes.Equal(got, in) {
		t.Errorf("%d bytes became %d", len(in), len(got))
	}
}

// Calls that get no answer are lost, from the moment when that was clear.
func TestLost(t *testing.T) {
	d := new(diary)
	provider, rec := recorder()
	w := connect(t, provider, middleware.WithObserver(d), middleware.WithQuiet(0, "Wait"))
	in := append(request(1, state(5)), request(3, &ttrpc.Request{Service: taskService, Method: "Wait"})...)
	exchange(t, w.client, w.server, in, func() int { return 1 << 30 })
	w.server.Close()
	w.wait(t)
	s := ended(t, rec, 1)[0]
	for _, method := range []string{"State", "Wait"} {
		if got, told := d.told["lost "+method]; !told || got.End.Before(got.Start) {
			t.Errorf("Lost was told %+v of %s", got, method)
		}
	}
	if got := d.told["lost State"]; !got.End.Equal(s.EndTime()) {
		t.Errorf("State was lost at %v, its span ended at %v", got.End, s.EndTime())
	}
	if _, told := d.told["answered State"]; told {
		t.Error("State was answered")
	}
}

// Calls that are open when a connection ends are guarded too.
func TestPanicAtTheEnd(t *testing.T) {
	provider, rec := recorder()
	var reported int
	w := connect(t, provider, middleware.WithErrorHandler(func(error) { reported++ }),
		middleware.WithObserver(&panicking{where: "Annotate", left: 99}))
	var in []byte
	for i := range uint32(5) {
		in = append(in, request(2*i+1, state(5))...)
	}
	exchange(t, w.client, w.server, in, func() int { return 1 << 30 })
	w.server.Close()
	w.wait(t)
	if reported != 2 {
		t.Errorf("%d reports, want 2", reported)
	}
	ended(t, rec, 0)
}
