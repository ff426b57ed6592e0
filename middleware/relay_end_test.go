package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/middleware"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// send writes and read reads, or the test ends.
func send(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func readFrame(t *testing.T, c net.Conn) (h wire.Header, payload []byte) {
	t.Helper()
	head := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	h = wire.ParseHeader(head)
	payload = make([]byte, h.Length)
	if _, err := io.ReadFull(c, payload); err != nil {
		t.Fatal(err)
	}
	return h, payload
}

func readEnd(t *testing.T, c net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Fatalf("got %q, %v, want the end", b, err)
	}
}

// writeFails writes until it fails, which the other end sees to some time.
func writeFails(t *testing.T, c net.Conn) {
	t.Helper()
	for {
		_, err := c.Write(answer(9, &ttrpc.Response{}))
		if errors.Is(err, syscall.EPIPE) {
			return
		}
		if err != nil {
			t.Fatalf("write: %v, want a broken pipe", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestHalfClose(t *testing.T) {
	t.Run("client first", func(t *testing.T) {
		w := connect(t)
		send(t, w.client, request(1, state(5)))
		w.client.CloseWrite()
		read(t, w.server, request(1, state(5)))
		readEnd(t, w.server)
		send(t, w.server, answer(1, &ttrpc.Response{})) // can be heard still
		read(t, w.client, answer(1, &ttrpc.Response{}))
		w.server.CloseWrite()
		readEnd(t, w.client)
		w.wait(t)
	})
	t.Run("server first", func(t *testing.T) {
		w := connect(t)
		send(t, w.server, answer(1, &ttrpc.Response{}))
		w.server.CloseWrite()
		read(t, w.client, answer(1, &ttrpc.Response{}))
		readEnd(t, w.client)
		send(t, w.client, request(3, state(5)))
		read(t, w.server, request(3, state(5)))
		w.client.CloseWrite()
		readEnd(t, w.server)
		w.wait(t)
	})
}

// TestLastWords: what one side said before it went is heard, although something
// could not be said to it any more. The words are so many that they do not all
// get past the relay before, and so few that the system holds the rest.
func TestLastWords(t *testing.T) {
	t.Run("of the server", func(t *testing.T) {
		w := connect(t)
		words := bytes.Repeat(answer(1, &ttrpc.Response{Payload: []byte("last")}), 1<<14)
		go func() {
			w.server.Write(words)
			w.server.Close()
		}()
		// The client does not listen yet, and talks to nobody.
		writeFails(t, w.client)
		got, err := io.ReadAll(w.client)
		if err != nil || !bytes.Equal(got, words) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(words))
		}
		w.client.Close()
		w.wait(t)
	})
	t.Run("of the client", func(t *testing.T) {
		w := connect(t)
		words := bytes.Repeat(request(1, state(40)), 1000)
		go func() {
			w.client.Write(words)
			w.client.Close()
		}()
		writeFails(t, w.server)
		got, err := io.ReadAll(w.server)
		if errors.Is(err, syscall.ECONNRESET) {
			err = nil // what the server said has not all been read, which it is told then
		}
		if err != nil || !bytes.Equal(got, words) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(words))
		}
		w.server.Close()
		w.wait(t)
	})
}

// TestDeaf: who shuts down its receiving side is still heard.
func TestDeaf(t *testing.T) {
	w := connect(t)
	w.server.CloseRead()
	writeFails(t, w.client)
	send(t, w.server, answer(1, &ttrpc.Response{}))
	read(t, w.client, answer(1, &ttrpc.Response{}))
	w.server.Close()
	readEnd(t, w.client)
	w.client.Close()
	w.wait(t)
}

// TestWithoutHalfClose: connections that cannot end one direction end both.
func TestWithoutHalfClose(t *testing.T) {
	for name, end := range map[string]func(client, server net.Conn){
		"client": func(client, _ net.Conn) { client.Close() },
		"server": func(_, server net.Conn) { server.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			client, in := net.Pipe()
			server, out := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				newRelay(tracing()...).Connect(in, out)
			}()
			go client.Write(request(1, state(5)))
			readFrame(t, server)
			end(client, server)
			select {
			case <-done:
			case <-time.After(patience):
				t.Error("the relay does not end")
			}
			client.Close()
			server.Close()
		})
	}
}

// A server that exits without answering, as Kata's shim does at its Shutdown: there
// it is no error, nor where it is expected.
func TestServerExits(t *testing.T) {
	closed := middleware.WithExpected(func(c *middleware.Call) bool { return c.Closed && c.Code == 0 && c.Method == "State" })
	for method, want := range map[string]struct {
		status                       sdktrace.Status
		errorType, expected, message any
	}{
		"Kill":     {status: sdktrace.Status{Code: codes.Error, Description: "no answer: connection closed"}, errorType: "connection_closed"},
		"State":    {expected: true, message: "no answer: connection closed"},
		"Shutdown": {},
	} {
		t.Run(method, func(t *testing.T) {
			provider, rec := recorder()
			l := listen(t)
			defer l.Close()
			relayAddr, stop := relay(t, l.Addr().String(), provider, closed)
			c := client(t, relayAddr)
			called := make(chan error)
			go func() {
				called <- c.Call(context.Background(), taskService, method, new(emptypb.Empty), new(emptypb.Empty))
			}()
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			readFrame(t, server)
			server.Close()
			if err := <-called; !errors.Is(err, ttrpc.ErrClosed) {
				t.Errorf("call ended with %v, want %v", err, ttrpc.ErrClosed)
			}
			stop()
			s := ended(t, rec, 1)[0]
			if got := attrs(s); s.Status() != want.status || got["error.type"] != want.errorType ||
				got["shimtrace.expected"] != want.expected || got["shimtrace.expected.message"] != want.message {
				t.Errorf("span has status %v and %v", s.Status(), got)
			}
		})
	}
}

// A client that goes amid a call takes its server's connection along.
func TestClientGoes(t *testing.T) {
	provider, rec := recorder()
	serverBusy, serverGone := make(chan struct{}), make(chan struct{})
	addr := server(t, ttrpc.WithUnaryServerInterceptor(func(ctx context.Context, u ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, m ttrpc.Method) (any, error) {
		defer close(serverGone)
		close(serverBusy)
		return m(ctx, u)
	}))
	relayAddr, stop := relay(t, addr, provider)
	c := client(t, relayAddr)
	ctx, cancel := context.WithCancel(context.Background())
	called := make(chan error)
	go func() { called <- c.Call(ctx, echoService, "Hang", new(emptypb.Empty), new(emptypb.Empty)) }()
	<-serverBusy
	c.Close()
	cancel()
	<-called
	<-serverGone // its context ended with the connection
	stop()
	ended(t, rec, 1)
}

func TestDialFails(t *testing.T) {
	errs := make(chan error, 1)
	relayAddr, _ := relay(t, "/nowhere/s", middleware.WithErrorHandler(func(err error) { errs <- err }))
	err := client(t, relayAddr).Call(context.Background(), taskService, "State", new(emptypb.Empty), new(emptypb.Empty))
	if !errors.Is(err, ttrpc.ErrClosed) {
		t.Errorf("call ended with %v, want %v", err, ttrpc.ErrClosed)
	}
	if err := <-errs; !errors.Is(err, syscall.ENOENT) {
		t.Errorf("reported %v, want that there is no such file", err)
	}
}

// failing is a listener whose first accepts fail.
type failing struct {
	net.Listener
	left atomic.Int32
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, syscall.EMFILE
	}
	return f.Listener.Accept()
}

func TestAcceptFails(t *testing.T) {
	addr := server(t)
	l := &failing{Listener: listen(t)}
	l.left.Store(2)
	errs := make(chan error, 2)
	r := middleware.NewRelay(middleware.WithErrorHandler(func(err error) { errs <- err }))
	done := make(chan error)
	go func() { done <- r.Serve(context.Background(), l, dialer(addr)) }()
	c := client(t, l.Addr().String())
	var got wrapperspb.BytesValue
	if err := c.Call(context.Background(), echoService, "Echo", wrapperspb.Bytes([]byte("x")), &got); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-errs; !errors.Is(err, syscall.EMFILE) {
			t.Errorf("reported %v", err)
		}
	}
	c.Close()
	l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An accept that goes on failing ends with the context.
func TestAcceptFailsForGood(t *testing.T) {
	l := &failing{Listener: listen(t)}
	l.left.Store(1 << 30)
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	r := middleware.NewRelay(middleware.WithErrorHandler(func(error) { cancel() }))
	if err := r.Serve(ctx, l, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
