package handover

import (
	"io"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is what a connection must have to be received.
type Conn interface {
	io.ReadCloser
	syscall.Conn
	SetReadDeadline(time.Time) error
}

// Incoming is a connection that is only read, and outlives the process: its Stream is one
// of a memory. Reads that go past the stream are not in the account.
type Incoming struct {
	Conn
	memory  *Memory
	stream  *Stream
	ended   func()
	stopped atomic.Bool
}

// Receive returns the connection with a memory, which is new or of the process that has
// read it before. ended is told when it has been closed. On error the caller has both.
func Receive(conn Conn, m *Memory, ended func()) (*Incoming, error) {
	s, err := m.stream(Requests, conn, nil)
	if err != nil {
		return nil, err
	}
	return &Incoming{Conn: conn, memory: m, stream: s, ended: ended}, nil
}

// Stream is what is read.
func (c *Incoming) Stream() *Stream { return c.stream }

// Leave has reading end with ErrStopped, and Close do nothing: another process goes on.
func (c *Incoming) Leave() {
	c.stopped.Store(true)
	c.stream.Stop()
}

// Close ends the connection, also where another process has its descriptor, and gives the
// memory back. Nothing may be read meanwhile.
func (c *Incoming) Close() error {
	if c.stopped.Load() {
		return nil
	}
	ShutDown(c.Conn)
	c.ended()
	err := c.Conn.Close()
	_ = c.memory.Close()
	return err
}

// ShutDown ends a connection, also where another process has its descriptor: to close it is
// not enough there.
func ShutDown(conn io.Closer) {
	if half, ok := conn.(interface {
		CloseRead() error
		CloseWrite() error
	}); ok {
		_ = half.CloseRead()
		_ = half.CloseWrite()
	}
}
