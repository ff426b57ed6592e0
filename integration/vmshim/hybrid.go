package vmshim

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// A hybrid is a VMM's hybrid VSOCK socket: a Unix socket by which the host dials
// ports of the guest, with Cloud Hypervisor's and Firecracker's handshake (the
// latter's docs/vsock.md): "CONNECT <port>\n", answered by "OK <port>\n". Where
// the guest has no listener the answer is the connection's end.
type hybrid struct {
	listener net.Listener
	ports    map[uint32]string // the guest's ports: Unix sockets that stand for them

	mu     sync.Mutex
	conns  map[net.Conn]bool // nil once closed
	served sync.WaitGroup
}

func serveHybrid(listener net.Listener, ports map[uint32]string) *hybrid {
	h := &hybrid{listener: listener, ports: ports, conns: map[net.Conn]bool{}}
	h.served.Go(func() {
		for {
			host, err := listener.Accept()
			if err != nil {
				return
			}
			h.served.Go(func() { h.serve(host) })
		}
	})
	return h
}

// close removes the socket and ends every connection.
func (h *hybrid) close() {
	h.listener.Close()
	h.mu.Lock()
	for conn := range h.conns {
		conn.Close()
	}
	h.conns = nil
	h.mu.Unlock()
	h.served.Wait()
}

func (h *hybrid) serve(host net.Conn) {
	if !h.own(host) {
		return
	}
	defer h.disown(host)
	port, err := handshake(host)
	if err != nil {
		return
	}
	guest, err := net.Dial("unix", h.ports[port])
	if err != nil || !h.own(guest) {
		return
	}
	defer h.disown(guest)
	if _, err := fmt.Fprintf(host, "OK %d\n", 1<<30); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		forward(guest, host)
	}()
	forward(host, guest)
	<-done
}

// own notes a connection for close, or ends it if that has been.
func (h *hybrid) own(conn net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conns == nil {
		conn.Close()
		return false
	}
	h.conns[conn] = true
	return true
}

func (h *hybrid) disown(conn net.Conn) {
	conn.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, conn)
}

// forward copies one direction, its end included.
func forward(to, from net.Conn) {
	io.Copy(to, from)
	to.(*net.UnixConn).CloseWrite()
}

// handshake reads the line by which the host says which port it wants. It reads
// byte by byte, because what follows is the guest's.
func handshake(host io.Reader) (port uint32, err error) {
	var line []byte
	for b := make([]byte, 1); len(line) < 32; line = append(line, b[0]) {
		if _, err := io.ReadFull(host, b); err != nil {
			return 0, err
		}
		if b[0] == '\n' {
			// runtime-rs writes it in lower case.
			_, err := fmt.Sscanf(strings.ToUpper(string(line)), "CONNECT %d", &port)
			return port, err
		}
	}
	return 0, fmt.Errorf("no handshake: %q", line)
}
