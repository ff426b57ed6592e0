package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Direction is one of the two of a connection.
type Direction int

const (
	// Requests go from the client to the server.
	Requests Direction = iota
	// Answers go from the server to the client.
	Answers
)

// Memory is what of a relayed connection outlives the process. Its methods are safe for
// concurrent use, except Close.
type Memory struct {
	file  *os.File
	mem   []byte
	calls *Calls
}

// New returns a memory for a connection. It has a descriptor and some pages, of which
// most come and go with what passes.
func New() (*Memory, error) {
	f, err := create(int64(memorySize))
	if err != nil {
		return nil, fmt.Errorf("relay memory: %w", err)
	}
	m, err := mapped(f)
	if err != nil {
		return nil, err
	}
	h := m.header()
	h.magic, h.version, h.size = magic, Version, uint64(memorySize)
	m.calls.unused = true
	return m, nil
}

// Open returns the memory of a process that has ended, or that does nothing with it any
// more. It takes f, also when it fails, and believes nothing in it that would lead out of
// its bounds.
func Open(f *os.File) (*Memory, error) {
	if err := sized(f, int64(memorySize)); err != nil {
		f.Close()
		return nil, fmt.Errorf("relay memory: %w", err)
	}
	m, err := mapped(f)
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		m.Close()
		return nil, fmt.Errorf("relay memory: %w", err)
	}
	return m, nil
}

func mapped(f *os.File) (*Memory, error) {
	mem, err := mapFile(f, memorySize)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("relay memory: %w", err)
	}
	m := &Memory{file: f, mem: mem}
	m.calls = newCalls(mem, &m.header().missed)
	return m, nil
}

// File is the file that another process is to have a copy of. It is closed with the
// memory.
func (m *Memory) File() *os.File { return m.file }

// Calls returns the table of calls that wait for their answers.
func (m *Memory) Calls() *Calls { return m.calls }

// Requests counts the requests of the connection, for whoever relays it.
func (m *Memory) Requests() *atomic.Uint32 { return &m.header().requests }

// Close gives the memory back, as far as nobody else has it. Its streams and what they
// returned are not used any more.
func (m *Memory) Close() error {
	return errors.Join(unmap(m.mem), m.file.Close())
}

func (m *Memory) header() *header { return (*header)(unsafe.Pointer(&m.mem[0])) }

func (m *Memory) buffer(d Direction) []byte {
	at := bufferOffset + int(d)*bufferSize
	return m.mem[at : at+bufferSize : at+bufferSize]
}

// Stream returns the stream of a direction, which begins where the account says: it reads
// from one connection and writes to another. Both must have nothing between their methods
// and their descriptors.
func (m *Memory) Stream(d Direction, from, to net.Conn) (*Stream, error) {
	f, ok := from.(source)
	if !ok {
		return nil, fmt.Errorf("relay memory: %T has no descriptor", from)
	}
	t, ok := to.(sink)
	if !ok {
		return nil, fmt.Errorf("relay memory: %T has no descriptor", to)
	}
	return m.stream(d, f, t)
}

// source and sink are what is asked of the two connections.
type source interface {
	syscall.Conn
	SetReadDeadline(time.Time) error
}

type sink interface {
	syscall.Conn
	SetWriteDeadline(time.Time) error
}

// stream is Stream, for a sink that may be nil.
func (m *Memory) stream(d Direction, from source, to sink) (*Stream, error) {
	// A stream that was stopped has left deadlines behind.
	_ = from.SetReadDeadline(time.Time{})
	rawFrom, err := from.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("relay memory: %w", err)
	}
	var rawTo syscall.RawConn
	if to != nil {
		_ = to.SetWriteDeadline(time.Time{})
		if rawTo, err = to.SyscallConn(); err != nil {
			return nil, fmt.Errorf("relay memory: %w", err)
		}
	}
	account := &m.header().streams[d]
	now := account.step()
	s := &Stream{buf: m.buffer(d), mark: now.mark}
	s.r = int(now.at - account.origin)
	s.w = s.r + int(account.read.done()-uint32(now.at))
	s.shared = newShared(account, s.buf, from, to, rawFrom, rawTo)
	if s.r == s.w {
		s.shared.rewind()
		s.r, s.w = 0, 0
	}
	return s, nil
}

// Progress returns a number that changes whenever bytes of the connection are read or
// written. It is for a process that has the descriptor of a memory and does not map it.
func Progress(fd int) (uint64, error) {
	var h header
	b := unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h))
	if n, err := pread(fd, b); err != nil {
		return 0, fmt.Errorf("relay memory: %w", err)
	} else if n < len(b) {
		return 0, fmt.Errorf("relay memory: it has %d bytes", n)
	}
	var sum uint64
	for i := range h.streams {
		s := &h.streams[i]
		now := s.step()
		sum += now.at + uint64(s.read.done()) + uint64(now.write.done())<<32
	}
	return sum, nil
}

// check reports what in a memory is not as this package leaves it.
func (m *Memory) check() error {
	h := m.header()
	if h.magic != magic {
		return errors.New("it is none")
	}
	if h.version != Version {
		return fmt.Errorf("it has version %d, this program knows version %d", h.version, Version)
	}
	if h.size != uint64(memorySize) {
		return fmt.Errorf("it says that it has %d bytes, not %d", h.size, memorySize)
	}
	for i := range h.streams {
		if err := h.streams[i].check(); err != nil {
			return fmt.Errorf("stream %d: %w", i, err)
		}
	}
	return nil
}

func (s *stream) check() error {
	if s.current > 1 {
		return fmt.Errorf("there is no step %d", s.current)
	}
	now := s.step()
	have := uint64(s.read.done() - uint32(now.at))
	before := now.at - s.origin
	if before > bufferSize || before+have > bufferSize {
		return fmt.Errorf("%d bytes behind %d do not fit", have, before)
	}
	if uint64(now.bytes) > have {
		return fmt.Errorf("it writes for %d bytes of %d", now.bytes, have)
	}
	if now.parts > maxParts {
		return fmt.Errorf("it writes %d parts", now.parts)
	}
	var total uint64
	for _, p := range now.part[:now.parts] {
		if uint64(p.offset)+uint64(p.len) > bufferSize {
			return fmt.Errorf("it writes %d bytes at %d", p.len, p.offset)
		}
		total += uint64(p.len)
	}
	if total > bufferSize {
		return fmt.Errorf("it writes %d bytes", total)
	}
	if done := now.write.done(); now.parts > 0 && uint64(done) > total {
		return fmt.Errorf("%d of %d bytes are written", done, total)
	}
	if int(now.mark.Have) > len(now.mark.Head) {
		return fmt.Errorf("%d bytes of a header", now.mark.Have)
	}
	return nil
}
