package kata

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/middleware"
)

// booting observes the call that makes a VM.
type booting struct {
	middleware.NopObserver
	*boot
}

func (b booting) Began(c *middleware.Call)    { b.began(c) }
func (b booting) Answered(c *middleware.Call) { b.ended(c) }

// bootWorld is a sandbox whose VM boots.
func bootWorld(t *testing.T) (b *boot, spans *shimtest.Spans, during func(method string, what func(at func(ms int) time.Time))) {
	spans = shimtest.NewSpans(t)
	provider := export.NewTracerProvider(config.Default().Trace, spans)
	b = &boot{tracer: provider.Tracer(names.ShimScope)}
	call := middleware.UnaryClientInterceptor(middleware.WithTracerProvider(provider), middleware.WithObserver(booting{boot: b}))
	return b, spans, func(method string, what func(at func(ms int) time.Time)) {
		began := time.Now()
		req := &ttrpc.Request{Service: "containerd.task.v3.Task", Method: method}
		_ = call(t.Context(), req, &ttrpc.Response{}, &ttrpc.UnaryClientInfo{}, func(context.Context, *ttrpc.Request, *ttrpc.Response) error {
			what(func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) })
			return nil
		})
	}
}

// wantPhase checks a span's times, in milliseconds after a moment.
func wantPhase(t *testing.T, s sdktrace.ReadOnlySpan, began time.Time, from, until int) {
	t.Helper()
	if f, u := s.StartTime().Sub(began).Milliseconds(), s.EndTime().Sub(began).Milliseconds(); int(f) != from || int(u) != until {
		t.Errorf("%s from %d to %d ms, want %d to %d", s.Name(), f, u, from, until)
	}
}

// TestBoot: what is seen of a VM's boot makes its phases, below the call that makes the VM.
func TestBoot(t *testing.T) {
	b, spans, during := bootWorld(t)
	b.attempts = func() uint64 { return 261 }
	var zero time.Time
	during("Create", func(at func(int) time.Time) {
		zero = at(0)
		b.started("no-qemu", os.Getpid(), at(10))
		b.note(&b.bound, at(30))
		b.drawn("root-span", true, at(95), at(99))
		b.drawn("create_sandbox", true, at(90), at(99))
		b.answered(at(120))
		b.answered(at(140))
		b.drawn(kata.ConnectSpan, false, at(30), at(130))
	})
	during("Create", func(at func(int) time.Time) { b.started("another", 1, at(5)) })
	b.make()
	b.make()
	boot := spans.One(names.VMBoot)
	shimtest.Want(t, boot.Attributes()[:1], "shimtrace.vm.vmm=no-qemu")
	if n := len(boot.Attributes()); n != 2 || boot.Attributes()[1].Value.AsInt64() != 262 {
		t.Errorf("%v", boot.Attributes())
	}
	if boot.Parent().SpanID() != spans.Named("containerd.task.v3.Task/Create")[0].SpanContext().SpanID() {
		t.Error("it is not below the call that makes the VM")
	}
	wantPhase(t, boot, zero, 10, 120)
	wantPhase(t, spans.One(names.VMMStart), zero, 10, 30)
	wantPhase(t, spans.One(names.GuestBoot), zero, 30, 90)
	wantPhase(t, spans.One(names.AgentConnect), zero, 90, 120)
	for _, name := range []string{names.VMMStart, names.GuestBoot, names.AgentConnect} {
		if spans.One(name).Parent().SpanID() != boot.SpanContext().SpanID() {
			t.Errorf("%s is not a phase of it", name)
		}
	}
}

// TestBootOverVSOCK: with QEMU the VMM and the runtime's connect are all that is seen while
// the agent does not trace.
func TestBootOverVSOCK(t *testing.T) {
	b, spans, during := bootWorld(t)
	var zero time.Time
	during("Create", func(at func(int) time.Time) {
		zero = at(0)
		b.started("qemu-system-x86_64", 0, at(10))
		b.drawn(kata.ConnectSpan, false, at(30), at(130))
	})
	b.make()
	wantPhase(t, spans.One(names.VMBoot), zero, 10, 130)
	wantPhase(t, spans.One(names.GuestBoot), zero, 10, 130)
	if n := len(spans.Named(names.VMMStart)) + len(spans.Named(names.AgentConnect)); n != 0 {
		t.Errorf("%d phases of which nothing is known", n)
	}
}

// TestBootUnseen: without an end there is no boot, and what happened before the call or in
// another one is none of it.
func TestBootUnseen(t *testing.T) {
	b, spans, during := bootWorld(t)
	b.started("before", 0, time.Now())
	during("Start", func(at func(int) time.Time) { b.answered(at(1)) })
	during("Create", func(at func(int) time.Time) {
		b.started("qemu", 0, at(10))
		b.answered(at(-1000))
	})
	b.make()
	if n := len(spans.Named(names.VMBoot)); n != 0 {
		t.Error("a boot of which no end is known")
	}
}

// TestBootListens: the VMM's socket says when it was bound.
func TestBootListens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmm.sock")
	var zero, listening time.Time
	b, _, during := bootWorld(t)
	during("Create", func(at func(int) time.Time) {
		zero = at(0)
		defer shimtest.Listen(t, path).Close()
		listening = time.Now()
		time.Sleep(20 * time.Millisecond) // the kernel dates files by its ticks
		fd, err := unix.Open(path, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		b.listens(f)
	})
	if b.bound.Before(zero) || b.bound.After(listening) {
		t.Errorf("bound %v after the call began", b.bound.Sub(zero))
	}
}
