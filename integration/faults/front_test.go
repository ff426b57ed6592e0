package faults_test

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
)

// A front stands at the collector's address in a rig's network, before the receiver,
// which is out of reach.
type front struct {
	t        testing.TB
	netns    string
	receiver string // address
	at       string // where it listens
	calm     func() // ends what fail goes on with

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]bool
	serving  sync.WaitGroup
}

func newFront(t testing.TB, netns string, recv *otlprecv.Receiver) *front {
	f := &front{t: t, netns: netns, receiver: recv.Endpoint()[len("http://"):], at: collectorAddr, open: map[net.Conn]bool{}}
	t.Cleanup(f.down)
	return f
}

// up serves each connection so, in the place of what there was.
func (f *front) up(serve func(net.Conn)) {
	f.t.Helper()
	f.down()
	l, err := otlprecv.ListenTCP(f.netns, f.at)
	check(f.t, err)
	f.mu.Lock()
	f.listener = l
	f.mu.Unlock()
	f.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.keep(conn)
			f.serving.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
}

func (f *front) keep(conn net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open[conn] = true
}

// down closes the listener, whose port refuses then, and all connections.
func (f *front) down() {
	f.mu.Lock()
	if f.listener != nil {
		f.listener.Close()
	}
	for conn := range f.open {
		conn.Close()
	}
	f.open = map[net.Conn]bool{}
	f.mu.Unlock()
	f.serving.Wait()
}

// forward connects to the receiver.
func (f *front) forward(conn net.Conn) {
	to, err := net.Dial("tcp", f.receiver)
	if err != nil {
		return
	}
	f.keep(to)
	defer to.Close()
	f.serving.Go(func() {
		_, _ = io.Copy(conn, to)
		conn.Close()
	})
	_, _ = io.Copy(to, conn)
}

// byteASecond reads so much, and answers nothing.
func (f *front) byteASecond(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetReadBuffer(1 << 10)
	for b := make([]byte, 1); ; time.Sleep(time.Second) {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}

// withTLS serves what is within TLS.
func withTLS(cert tls.Certificate, serve func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}})
		if secure.Handshake() == nil {
			serve(secure)
		}
	}
}
