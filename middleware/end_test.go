package middleware_test

import (
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/shimtrace/shimtrace/middleware"
)

// TestEnd: it is told which side of a connection ended it, with which error, after which
// request.
func TestEnd(t *testing.T) {
	ask := func(stream uint32, method string) []byte {
		return request(stream, &ttrpc.Request{Service: jobs, Method: method})
	}
	for name, tt := range map[string]struct {
		do   func(t *testing.T, w *wires)
		want middleware.End
	}{
		"client between two requests": {func(t *testing.T, w *wires) {
			send(t, w.client, ask(1, "Run"))
			readFrame(t, w.server)
			send(t, w.server, answer(1, &ttrpc.Response{}))
			readFrame(t, w.client)
			w.client.Close()
			readEnd(t, w.server)
		}, middleware.End{By: middleware.Client, Requests: 1, Last: jobs + "/Run"}},
		"client within a request": {func(t *testing.T, w *wires) {
			send(t, w.client, ask(1, "Run")[:12])
			w.client.CloseWrite()
			if rest, err := io.ReadAll(w.server); err != nil || len(rest) != 12 {
				t.Errorf("the server got %q, %v", rest, err)
			}
		}, middleware.End{By: middleware.Client, Err: io.ErrUnexpectedEOF}},
		"server, with requests open": {func(t *testing.T, w *wires) {
			for stream, method := range map[uint32]string{1: "Run", 3: "Await", 5: "Output", 9: "Hint"} {
				send(t, w.client, ask(stream, method))
				readFrame(t, w.server)
			}
			send(t, w.client, ask(7, "Start"))
			readFrame(t, w.server)
			w.server.Close()
			readEnd(t, w.client)
		}, middleware.End{By: middleware.Server, Requests: 5, Last: jobs + "/Start", Unanswered: 2}},
		"server within an answer": {func(t *testing.T, w *wires) {
			send(t, w.client, ask(1, "Run"))
			readFrame(t, w.server)
			send(t, w.server, answer(1, &ttrpc.Response{Payload: []byte("x")})[:11])
			w.server.CloseWrite()
			if rest, err := io.ReadAll(w.client); err != nil || len(rest) != 11 {
				t.Errorf("the client got %q, %v", rest, err)
			}
		}, middleware.End{By: middleware.Server, Err: io.ErrUnexpectedEOF, Requests: 1, Last: jobs + "/Run", Unanswered: 1}},
		"server that has not read": {func(t *testing.T, w *wires) {
			send(t, w.client, ask(1, "Run"))
			// It is there, unread, when the server closes: the relay's reads fail.
			for n := 0; n <= 0; {
				raw, err := w.server.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				_ = raw.Control(func(fd uintptr) {
					n, _, _ = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
				})
			}
			w.server.Close()
			readEnd(t, w.client)
		}, middleware.End{By: middleware.Server, Err: syscall.ECONNRESET, Requests: 1, Last: jobs + "/Run", Unanswered: 1}},
		"nothing was said": {func(t *testing.T, w *wires) {
			w.client.Close()
			readEnd(t, w.server)
		}, middleware.End{By: middleware.Client}},
	} {
		t.Run(name, func(t *testing.T) {
			ends := make(chan middleware.End, 2)
			before := time.Now()
			w := connect(t, middleware.WithMethods(jobMethod), middleware.WithEnd(func(e middleware.End) { ends <- e }),
				middleware.WithExpected(func(c *middleware.Call) bool { return c.Closed && c.Method == "Hint" }))
			tt.do(t, w)
			w.client.Close()
			w.server.Close()
			w.wait(t)
			got := <-ends
			if !errors.Is(got.Err, tt.want.Err) || got.At.Before(before) || got.At.After(time.Now()) {
				t.Errorf("error %v, at %v", got.Err, got.At)
			}
			got.Err, got.At = tt.want.Err, time.Time{}
			if got != tt.want {
				t.Errorf("told %+v, want %+v", got, tt.want)
			}
			if len(ends) > 0 {
				t.Errorf("told again: %+v", <-ends)
			}
		})
	}
}

// TestEndPanics: who is told may panic; the connection has ended all the same.
func TestEndPanics(t *testing.T) {
	w := connect(t, middleware.WithEnd(func(middleware.End) { panic("a bug") }), middleware.WithErrorHandler(func(error) {}))
	w.client.Close()
	readEnd(t, w.server)
	w.server.Close()
	w.wait(t)
}
