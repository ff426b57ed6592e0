package listen

import (
	"io"
	"time"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// Port is the VSOCK port that the agent sends spans to.
const Port = kata.SpanPort

// Conn is a connection from a VM. Nobody ever writes to it.
type Conn interface {
	io.ReadCloser
	SetReadDeadline(time.Time) error
}

// Origin says where a connection comes from.
type Origin struct {
	// Sandbox is the sandbox's id; empty for a VM that no relay has claimed, which only
	// its CID identifies.
	Sandbox string
	// CID is the VM's address, vouched for by the kernel; 0 for hybrid VSOCK, where the
	// socket's path says which VM it is.
	CID uint32
	// Path is the Unix socket of hybrid VSOCK, else empty.
	Path string
}

// Handler takes a connection over and closes it when done. It must not block.
type Handler func(conn Conn, from Origin)
