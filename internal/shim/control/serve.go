package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
)

const (
	// maxRequest bounds a request in bytes, requestTime how long it may take to
	// arrive, and its answer to be taken.
	maxRequest  = 4 << 10
	requestTime = 2 * time.Second
	// maxClients bounds the clients served at once; more wait to be accepted.
	maxClients = 16
)

// Handler answers a request. It is called for several clients at once.
type Handler func(client net.Conn, r Request) Answer

// Server serves clients until Close. While there are none it costs a goroutine.
type Server struct {
	listener net.Listener
	handle   Handler
	slots    chan struct{}
	serving  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	clients map[net.Conn]struct{}
}

// Serve serves the clients of a listener, which it owns from then on.
func Serve(l net.Listener, handle Handler) *Server {
	s := &Server{listener: l, handle: handle, slots: make(chan struct{}, maxClients), clients: make(map[net.Conn]struct{})}
	s.serving.Go(s.accept)
	return s
}

// Close ends the serving. A client that is being answered gets its answer, one that
// has not said what it wants gets none.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.listener.Close()
	for c := range s.clients {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *Server) accept() {
	_ = host.AcceptAll(context.Background(), func() (net.Conn, error) {
		s.slots <- struct{}{}
		conn, err := s.listener.Accept()
		if err != nil {
			<-s.slots
		}
		return conn, err
	}, func(conn net.Conn) {
		s.serving.Go(func() {
			s.serve(conn)
			<-s.slots
		})
	}, func(error) {})
}

// serve answers one client.
func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	if !s.enter(conn) {
		return
	}
	defer s.leave(conn)
	answer := s.answer(conn)
	answer.Version = version
	_ = conn.SetWriteDeadline(time.Now().Add(requestTime))
	_ = json.NewEncoder(conn).Encode(answer) // who does not wait for it need not know
}

// answer does what a client asks for. A panic costs the client its answer, and not the
// process, on which a sandbox depends.
func (s *Server) answer(conn net.Conn) (a Answer) {
	defer func() {
		if v := recover(); v != nil {
			a = Answer{Error: fmt.Sprintf("the relay failed at that: panic: %v", v)}
		}
	}()
	var r Request
	if err := json.NewDecoder(io.LimitReader(conn, maxRequest)).Decode(&r); err != nil {
		return Answer{Error: "this is not a request: " + err.Error()}
	}
	if r.Version != version {
		return Answer{Error: fmt.Sprintf("the request is of version %d, this relay knows version %d: use the shimtrace that it was started from", r.Version, version)}
	}
	return s.handle(conn, r)
}

func (s *Server) enter(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || conn.SetReadDeadline(time.Now().Add(requestTime)) != nil {
		return false
	}
	s.clients[conn] = struct{}{}
	return true
}

func (s *Server) leave(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, conn)
}
