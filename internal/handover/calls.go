package handover

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	// maxCalls bounds the calls that are kept of a connection.
	maxCalls = 128
	callSize = int(unsafe.Sizeof(callEntry{}))
)

// Call is a call that waits for its answer, as far as whoever goes on with the
// connection needs it for the call's span.
type Call struct {
	Stream uint32 // ttrpc's id
	// At is the position of the request in its stream.
	At uint64
	// Start and Deadline are in Unix nanoseconds; 0: there is no deadline.
	Start, Deadline int64
	Streaming       bool

	Span, Caller, Link SpanContext
	ParentID           [8]byte

	Service, Method                        string
	ContainerID, ExecID, SandboxID, Bundle string
	Signal                                 uint32
}

// SpanContext is OpenTelemetry's; zero: there is none.
type SpanContext struct {
	TraceID [16]byte
	SpanID  [8]byte
	Sampled bool
}

// callEntry is a Call in the memory.
type callEntry struct {
	key             atomic.Uint64 // used and the stream; 0: the entry is free
	at              uint64
	start, deadline int64
	flags, signal   uint32
	parent          [8]byte
	contexts        [3]context // of the span, the caller and the link
	names           [256]byte  // each behind a byte with its length
}

// context is a SpanContext in the memory.
type context struct {
	trace [16]byte
	span  [8]byte
	flags uint64
}

const (
	used = 1 << 32

	sampled   = 1
	streaming = 1
)

// Calls are the calls of a connection that wait for their answers.
type Calls struct {
	mu      sync.Mutex
	entries []callEntry
	keys    []uint64 // of those that have been used; the others have no pages
	missed  *atomic.Uint64
	unused  bool // nobody has kept a call: the entries are not read, which would give them pages
}

func newCalls(mem []byte, missed *atomic.Uint64) *Calls {
	return &Calls{entries: unsafe.Slice((*callEntry)(unsafe.Pointer(&mem[callsOffset])), maxCalls), missed: missed}
}

// Put keeps a call, before its request is forwarded. What does not fit is counted until
// it is removed.
func (c *Calls) Put(call Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unused = false
	at := 0
	for at < len(c.keys) && c.keys[at] != 0 {
		at++
	}
	if at == maxCalls {
		c.missed.Add(1)
		return
	}
	e := &c.entries[at]
	if !e.put(call) {
		c.missed.Add(1)
		return
	}
	if at == len(c.keys) {
		c.keys = append(c.keys, 0)
	}
	c.keys[at] = used | uint64(call.Stream)
	e.key.Store(c.keys[at])
}

// Remove forgets the call of a stream, for which there must have been a Put.
func (c *Calls) Remove(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, key := range c.keys {
		if key == used|uint64(stream) {
			c.entries[at].key.Store(0)
			c.keys[at] = 0
			return
		}
	}
	c.missed.Add(^uint64(0))
}

// All returns the calls that another process has kept, and how many did not fit, of which
// no more is known. From then on they are kept by this one.
func (c *Calls) All() (all []Call, missed uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unused {
		c.unused = false
		return nil, 0
	}
	c.keys = c.keys[:0]
	for at := range c.entries {
		key := c.entries[at].key.Load()
		if key&used == 0 {
			key = 0
		} else {
			key = used | key&(used-1)
			all = append(all, c.entries[at].get(uint32(key)))
		}
		c.keys = append(c.keys, key)
	}
	for n := len(c.keys); n > 0 && c.keys[n-1] == 0; n-- {
		c.keys = c.keys[:n-1]
	}
	return all, c.missed.Swap(0)
}

// put fills in the free entry, and reports whether what names the call fits.
func (e *callEntry) put(c Call) bool {
	e.at, e.start, e.deadline = c.At, c.Start, c.Deadline
	e.parent = c.ParentID
	for i, sc := range [...]*SpanContext{&c.Span, &c.Caller, &c.Link} {
		e.contexts[i] = context{trace: sc.TraceID, span: sc.SpanID}
		if sc.Sampled {
			e.contexts[i].flags = sampled
		}
	}
	e.flags, e.signal = 0, c.Signal
	if c.Streaming {
		e.flags = streaming
	}
	room := e.names[:]
	for i, name := range [...]string{c.Service, c.Method, c.ContainerID, c.ExecID, c.SandboxID, c.Bundle} {
		if len(name) > 255 || len(name)+1 > len(room) {
			if i < 2 {
				return false
			}
			name = ""
		}
		if len(room) == 0 {
			break
		}
		room[0] = byte(len(name))
		room = room[1+copy(room[1:], name):]
	}
	return true
}

func (e *callEntry) get(stream uint32) Call {
	c := Call{
		Stream: stream, At: e.at, Start: e.start, Deadline: e.deadline,
		Streaming: e.flags&streaming != 0, ParentID: e.parent, Signal: e.signal,
	}
	for i, sc := range [...]*SpanContext{&c.Span, &c.Caller, &c.Link} {
		k := &e.contexts[i]
		*sc = SpanContext{k.trace, k.span, k.flags&sampled != 0}
	}
	room := e.names[:]
	for _, name := range []*string{&c.Service, &c.Method, &c.ContainerID, &c.ExecID, &c.SandboxID, &c.Bundle} {
		if len(room) == 0 || 1+int(room[0]) > len(room) {
			break
		}
		n := 1 + int(room[0])
		*name, room = string(room[1:n]), room[n:]
	}
	return c
}
