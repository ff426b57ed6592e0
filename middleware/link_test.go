package middleware_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/exporttest"
	"github.com/shimtrace/shimtrace/internal/testkit"
	"github.com/shimtrace/shimtrace/middleware"
)

// patience is how long a test waits for what must happen.
const patience = testkit.Patience

// listen listens on a unix socket, whose path is short enough whatever the test
// is called.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(testkit.ShortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dialer(addr string) middleware.DialFunc {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", addr)
	}
}

// relay starts a relay to the server at addr and returns where it listens. stop
// returns when it and its connections have ended, which clients must have done.
func relay(t testing.TB, addr string, opts ...middleware.Option) (relayed string, stop func()) {
	t.Helper()
	l := listen(t)
	done := make(chan error, 1)
	go func() { done <- newRelay(opts...).Serve(context.Background(), l, dialer(addr)) }()
	stop = sync.OnceFunc(func() {
		l.Close()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("relay: %v", err)
			}
		case <-time.After(patience):
			t.Error("the relay does not end")
		}
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// client returns a real ttrpc client of the server at addr.
func client(t testing.TB, addr string, opts ...ttrpc.ClientOpts) *ttrpc.Client {
	t.Helper()
	conn, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn, opts...)
	t.Cleanup(func() {
		c.Close()
		c.UserOnCloseWait(context.Background())
	})
	return c
}

// recorded is where the spans are that have ended.
type recorded interface {
	Ended() []sdktrace.ReadOnlySpan
}

// recorder returns an option that records spans, and where they are then: the shim's spans, and
// with options the SDK's, which are made in another way.
func recorder(opts ...sdktrace.TracerProviderOption) (middleware.Option, recorded) {
	if len(opts) == 0 {
		rec := new(exporttest.Recorder)
		return middleware.WithTracerProvider(export.NewTracerProvider(config.Default().Trace, rec)), rec
	}
	rec := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(append(opts, sdktrace.WithSpanProcessor(rec))...)
	return middleware.WithTracerProvider(tp), rec
}

// ended waits for n spans to have ended, and no more.
func ended(t testing.TB, rec recorded, n int) []sdktrace.ReadOnlySpan {
	t.Helper()
	for end := time.Now().Add(patience); len(rec.Ended()) < n && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	spans := rec.Ended()
	if len(spans) != n {
		t.Fatalf("%d spans, want %d: %v", len(spans), n, names(spans))
	}
	return spans
}

func names(spans []sdktrace.ReadOnlySpan) (names []string) {
	for _, s := range spans {
		names = append(names, s.Name())
	}
	return names
}

// socketpair returns the two ends of a connection.
func socketpair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return conns[0], conns[1]
}

// wires are the outer ends of one relayed connection.
type wires struct {
	client, server *net.UnixConn
	done           chan struct{} // closed when the relay has ended
}

// connect relays between two wires in the test's own hands.
func connect(t testing.TB, opts ...middleware.Option) *wires {
	t.Helper()
	client, in := socketpair(t)
	server, out := socketpair(t)
	w := &wires{client, server, make(chan struct{})}
	go func() {
		defer close(w.done)
		newRelay(opts...).Connect(in, out)
	}()
	t.Cleanup(func() {
		client.Close()
		server.Close()
		w.wait(t)
	})
	for _, c := range []*net.UnixConn{client, server} {
		c.SetDeadline(time.Now().Add(patience))
	}
	return w
}

func (w *wires) wait(t testing.TB) {
	t.Helper()
	select {
	case <-w.done:
	case <-time.After(patience):
		t.Error("the relay of the connection does not end")
	}
}
