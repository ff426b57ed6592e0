package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves with the handler and returns the socket.
func serve(t *testing.T, handle Handler) (socket string, s *Server) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s = Serve(l, handle)
	t.Cleanup(s.Close)
	return socket, s
}

func dial(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

// echo answers with what it was asked.
func echo(_ net.Conn, r Request) Answer {
	if r.By == "nobody" {
		return Answer{Sandbox: "known", Error: "no"}
	}
	return Answer{Sandbox: fmt.Sprint(r.Do, " ", r.For, " ", r.By)}
}

func TestAsk(t *testing.T) {
	socket, _ := serve(t, echo)
	a, err := Ask(t.Context(), socket, Request{Do: DoOn, For: time.Second, By: "alice"})
	if err != nil || a.Sandbox != "on 1s alice" || a.Version != version {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err := Ask(t.Context(), socket, Request{Do: DoOn, By: "nobody"}); err == nil || err.Error() != "no" || a.Sandbox != "known" {
		t.Errorf("got %+v, %v, want the relay's own words", a, err)
	}
}

// TestPanic: who asks gets an answer, and the next one what it asks for.
func TestPanic(t *testing.T) {
	socket, _ := serve(t, func(conn net.Conn, r Request) Answer {
		if r.By == "nobody" {
			panic("a bug")
		}
		return echo(conn, r)
	})
	if _, err := Ask(t.Context(), socket, Request{Do: DoOn, By: "nobody"}); err == nil || !strings.Contains(err.Error(), "panic: a bug") {
		t.Errorf("got %v", err)
	}
	if _, err := Ask(t.Context(), socket, Request{Do: DoOn, By: "alice"}); err != nil {
		t.Error(err)
	}
}

func TestAskNobody(t *testing.T) {
	socket, s := serve(t, echo)
	s.Close()
	if _, err := Ask(t.Context(), socket, Request{Do: DoStatus}); err == nil || !strings.Contains(err.Error(), socket) {
		t.Errorf("got %v, want an error that says where", err)
	}
}

// raw sends bytes and returns the answer.
func raw(t *testing.T, socket string, send []byte) (a Answer) {
	t.Helper()
	conn := dial(t, socket)
	if _, err := conn.Write(send); err != nil {
		return Answer{Error: err.Error()}
	}
	_ = conn.CloseWrite()
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		t.Errorf("%.40q has no answer: %v", send, err)
	}
	return a
}

func TestGarbage(t *testing.T) {
	socket, _ := serve(t, echo)
	for _, send := range []string{
		"", "\x00\x01\x02", "GET / HTTP/1.1\r\n\r\n", "{", "[]", `{"version":1,"do":7}`, `{"version":"1"}`,
		`{"version":1,"do":"` + strings.Repeat("x", maxRequest) + `"}`, strings.Repeat("[", maxRequest), `{"version":1,"for_ns":1e99}`,
	} {
		if a := raw(t, socket, []byte(send)); a.Error == "" || a.Version != version {
			t.Errorf("%.40q was answered with %+v", send, a)
		}
	}
	for _, version := range []int{0, 2, -1} {
		if a := raw(t, socket, fmt.Appendf(nil, `{"version":%d,"do":"on"}`, version)); !strings.Contains(a.Error, "version") {
			t.Errorf("version %d was answered with %+v", version, a)
		}
	}
	if a := raw(t, socket, []byte(`{"version":1,"do":"on","of a later day":[1,2]} and more`)); a.Sandbox != "on 0s " {
		t.Errorf("a request of a later day was answered with %+v", a)
	}
}

func FuzzRequest(f *testing.F) {
	for _, seed := range []string{`{"version":1,"do":"on","for_ns":30000000000,"by":"root"}`, `{"version":1,"do":"off"}`, "{", "", `{"version":1}{"version":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, send []byte) {
		asked := 0
		s := &Server{handle: func(_ net.Conn, r Request) Answer {
			asked++
			return echo(nil, r)
		}}
		if a := s.answer(said{r: bytes.NewReader(send)}); (a.Error == "") != (asked == 1) && a.Error != "no" {
			t.Errorf("%q was answered with %+v", send, a)
		}
	})
}

// said is a connection on which something is said.
type said struct {
	net.Conn
	r io.Reader
}

func (s said) Read(b []byte) (int, error) { return s.r.Read(b) }

// Clients that say nothing, or half of it, or do not read, keep nobody from being
// served, and the server not from ending.
func TestHungClients(t *testing.T) {
	socket, s := serve(t, func(_ net.Conn, r Request) Answer {
		a := echo(nil, r)
		if r.By == "much" {
			a.Pod = strings.Repeat("x", 4<<20) // more than a socket takes
		}
		return a
	})
	for i := range maxClients + 2 {
		conn := dial(t, socket)
		switch i % 3 {
		case 1:
			fmt.Fprint(conn, `{"version":1,`)
		case 2:
			fmt.Fprint(conn, `{"version":1,"do":"on","by":"much"}`)
		}
	}
	if a, err := Ask(t.Context(), socket, Request{Do: DoStatus, By: "patient"}); err != nil || a.Sandbox != "status 0s patient" {
		t.Errorf("got %+v, %v", a, err)
	}
	dial(t, socket)
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(time.Minute): // far more than requestTime
		t.Error("hung clients keep the server from ending")
	}
}

// No more than maxClients are served at once, and all in the end.
func TestManyClients(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	socket, _ := serve(t, func(_ net.Conn, r Request) Answer {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		return echo(nil, r)
	})
	var wg sync.WaitGroup
	for i := range 8 * maxClients {
		wg.Go(func() {
			want := fmt.Sprint("client ", i)
			if a, err := Ask(t.Context(), socket, Request{Do: DoStatus, By: want}); err != nil || a.Sandbox != "status 0s "+want {
				t.Errorf("got %+v, %v", a, err)
			}
		})
	}
	wg.Wait()
	if most > maxClients {
		t.Errorf("%d served at once, want at most %d", most, maxClients)
	}
}

// A client that is being answered when the server closes has its answer.
func TestCloseAnswers(t *testing.T) {
	began, go_ := make(chan struct{}), make(chan struct{})
	socket, s := serve(t, func(_ net.Conn, r Request) Answer {
		close(began)
		<-go_
		return echo(nil, r)
	})
	answered := make(chan error, 1)
	go func() {
		_, err := Ask(t.Context(), socket, Request{Do: DoOff})
		answered <- err
	}()
	<-began
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	close(go_)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	<-closed
}

// oddListener fails as one does that is out of descriptors.
type oddListener struct {
	net.Listener
	fail int
}

func (l *oddListener) Accept() (net.Conn, error) {
	if l.fail > 0 {
		l.fail--
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

func TestAcceptFails(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(&oddListener{l, 2}, echo)
	defer s.Close()
	if _, err := Ask(t.Context(), socket, Request{Do: DoStatus}); err != nil {
		t.Error(err)
	}
}

// A relay of another day answers as it likes; the client takes no more than it can
// hold.
func TestStrangeAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		answer io.Reader
		want   string
	}{
		"none":          {strings.NewReader(""), "it has ended"},
		"not JSON":      {strings.NewReader("<html>"), "invalid character"},
		"cut":           {strings.NewReader(`{"version":1`), "unexpected EOF"},
		"of a version":  {strings.NewReader(`{"version":2}`), "version 2"},
		"without end":   {io.MultiReader(strings.NewReader(`{"version":1,"pod":"`), bytes.NewReader(bytes.Repeat([]byte("x"), 2*maxAnswer))), "EOF"},
		"error, later":  {strings.NewReader(`{"version":2,"error":"I am of version 2"}`), "I am of version 2"},
		"of no version": {strings.NewReader(`{}`), "version 0"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_ = json.NewDecoder(conn).Decode(new(Request))
				_, _ = io.Copy(conn, tt.answer)
			})
			if _, err := Ask(t.Context(), socket, Request{Do: DoStatus}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	if all, err := List(dir); err != nil || all != nil {
		t.Errorf("of nothing: %v, %v", all, err)
	}
	s := filepath.Join(dir, "s")
	if err := os.Mkdir(s, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a.json":            `{"version":1,"sandbox":"web","pod":"web-0","pod_namespace":"shop","dynamic":true,"window":{"began":"2026-01-01T00:00:00Z"}}`,
		"b.json":            `{"version":1,"sandbox":"db","relay_socket":"/x"}`,
		"c.json":            `{"version":1}`,
		"d.json":            `garbage`,
		"e.sock":            ``,
		".a.json.shimtrace": `{"sandbox":"half"}`,
		".f.json":           `{"sandbox":"hidden"}`,
	} {
		if err := os.WriteFile(filepath.Join(s, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(s, "a.json"), filepath.Join(s, "link.json")); err != nil {
		t.Fatal(err)
	}
	all, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []Relay{
		{Sandbox: "web", Pod: "web-0", PodNamespace: "shop", Dynamic: true, Socket: filepath.Join(s, "a.ctl")},
		{Sandbox: "db", RelaySock: "/x", Socket: filepath.Join(s, "b.ctl")},
	}
	if fmt.Sprint(all) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", all, want)
	}
}
