package handover

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// Version is that of the layout. A memory of another one is not opened.
const Version = 1

var magic = [8]byte{'s', 'h', 'i', 'm', 'r', 'e', 'l', 'y'}

const (
	pageSize = 4 << 10
	// maxParts bounds the parts of one write that stay where they are.
	maxParts = 16
	// maxPeek is the most bytes that can be peeked at: ttrpc's longest frame.
	maxPeek = 4<<20 + 10
	// bufferSize is a stream's room in bytes, of which only what is used exists: for two
	// frames while the second is moved, what was read ahead, and a frame put together
	// anew.
	bufferSize = 3*4<<20 + 512<<10

	callsOffset  = 1792
	callsSize    = maxCalls * callSize
	bufferOffset = (callsOffset + callsSize + pageSize - 1) &^ (pageSize - 1)
	memorySize   = bufferOffset + 2*bufferSize
)

// header is at the beginning of the memory, followed by the calls at callsOffset and the
// two buffers at bufferOffset. All integers are the machine's own; those named "address"
// mean something only to the process that stored them.
type header struct {
	magic    [8]byte
	version  uint32
	requests atomic.Uint32
	size     uint64        // of the whole
	missed   atomic.Uint64 // calls that wait for their answers and are not kept
	streams  [2]stream
}

// stream is the account of one direction. Positions are counted in bytes from the
// beginning of the connection.
type stream struct {
	current uint32 // which step is
	failed  uint32 // the error that reading ends with, once all is read
	origin  uint64 // the position of the buffer's first byte
	read    message
	into    vector
	steps   [2]step
	from    [maxParts]vector // of the write under way
}

// step is what the stream's reader does with the bytes from at on.
type step struct {
	write message
	at    uint64
	bytes uint32 // how many the parts stand for
	parts uint32 // how many are being written; 0: none
	mark  Mark
	part  [maxParts]part
}

// part is a part of the buffer.
type part struct{ offset, len uint32 }

// Mark is where in a frame a position is, as the stream's reader has it.
type Mark struct {
	// Left are the bytes of the frame that are still to come.
	Left uint64
	// Head has the bytes of its header that have come, Have their number.
	Head [12]byte
	Have uint32
}

// vector is the kernel's struct iovec.
type vector struct{ address, len uint64 }

// message is the kernel's struct mmsghdr on 64 bits, whose padding at the end has
// the low half of a position.
type message struct {
	name       uint64
	nameLen    uint32
	_          uint32
	vectors    uint64 // address
	count      uint64
	control    uint64
	controlLen uint64
	flags      int32
	_          uint32
	bytes      [2]uint32 // that the kernel has stored; before that message
}

// Other versions rely on the layout, and so does the kernel.
const (
	_ = -(unsafe.Offsetof(message{}.bytes) ^ 56)
	_ = uint(callsOffset - unsafe.Sizeof(header{}))
)

// use has the message carry nothing but bytes, those of the vectors from first on.
func (m *message) use(first *vector) {
	*m = message{vectors: uint64(uintptr(unsafe.Pointer(first))), count: 1, bytes: m.bytes}
}

// begin has the account go on from a position, with nothing done yet behind it.
func (m *message) begin(at uint32) {
	var word [8]byte
	binary.NativeEndian.PutUint32(word[4:], at)
	atomic.StoreUint64(m.word(), binary.NativeEndian.Uint64(word[:]))
}

// done returns the position behind what the kernel has done.
func (m *message) done() uint32 {
	var word [8]byte
	binary.NativeEndian.PutUint64(word[:], atomic.LoadUint64(m.word()))
	return binary.NativeEndian.Uint32(word[:]) + binary.NativeEndian.Uint32(word[4:])
}

func (m *message) word() *uint64 { return (*uint64)(unsafe.Pointer(&m.bytes)) }

// step returns the current one, and other the one that will be next.
func (s *stream) step() *step  { return &s.steps[atomic.LoadUint32(&s.current)&1] }
func (s *stream) other() *step { return &s.steps[^atomic.LoadUint32(&s.current)&1] }
func (s *stream) flip()        { atomic.StoreUint32(&s.current, ^s.current&1) }
