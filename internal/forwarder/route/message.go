package route

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Relays and the router talk over a Unix stream socket. A message is a length (32 bits,
// big-endian, of what follows), a kind and the kind's payload. Either side may be an
// older version: it skips kinds and JSON keys that it does not know.
const (
	// kindClaim: from a relay, first and on every change; a claim as JSON.
	kindClaim = 'c'
	// kindSpan: from the router; a span.Span.
	kindSpan = 's'
	// kindEnd: from a relay that is about to leave; from the router in answer, when all
	// spans under way have been sent.
	kindEnd = 'e'

	headSize   = 4 + 1
	maxMessage = 1 + span.MaxSize
	// maxClaim bounds a claim in bytes.
	maxClaim = 16 << 10
	// keepBuffer is the largest buffer kept from one message to the next.
	keepBuffer = 64 << 10
)

// claim is what a relay tells of itself.
type claim struct {
	// Sandbox is the sandbox's id.
	Sandbox string `json:"sandbox"`
	// Processes are the pids of its runtime.
	Processes []int `json:"processes,omitempty"`
	// Started has their starts (host.Process), in the same order, so that a reused pid
	// is noticed; 0: not known.
	Started []uint64 `json:"started,omitempty"`
}

func appendMessage(b []byte, kind byte, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(1+len(payload)))
	return append(append(b, kind), payload...)
}

// appendSpan appends a message with a span. It returns b unchanged and false if the
// span is too large.
func appendSpan(b []byte, s *span.Span) ([]byte, bool) {
	at := len(b)
	b = s.Append(append(b, 0, 0, 0, 0, kindSpan))
	n := len(b) - at - 4
	if n > maxMessage {
		return b[:at], false
	}
	binary.BigEndian.PutUint32(b[at:], uint32(n))
	return b, true
}

func claimMessage(c claim) []byte {
	payload, err := json.Marshal(c)
	if err != nil { // cannot happen: strings and numbers
		panic(err)
	}
	return appendMessage(nil, kindClaim, payload)
}

// errProtocol: the other side sent what no relay and no router sends.
var errProtocol = errors.New("not what relays and their endpoint say to each other")

type receiver struct {
	from io.Reader
	// most is the longest message, in bytes.
	most int
	head [headSize]byte
	buf  []byte
}

// next returns the next message; the payload is valid until the next call.
func (r *receiver) next() (kind byte, payload []byte, err error) {
	if _, err := io.ReadFull(r.from, r.head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(r.head[:4])) - 1
	if n < 0 || n >= r.most {
		return 0, nil, fmt.Errorf("message %q of %d bytes: %w", r.head[4], n+1, errProtocol)
	}
	if cap(r.buf) < n || cap(r.buf) > keepBuffer {
		r.buf = make([]byte, n, max(n, 4<<10))
	}
	payload = r.buf[:n]
	if _, err := io.ReadFull(r.from, payload); err != nil {
		return 0, nil, fmt.Errorf("message %q of %d bytes: %w", r.head[4], n+1, err)
	}
	return r.head[4], payload, nil
}

// socketPath is where the router listens for relays, below their directory.
func socketPath(dir string) string { return filepath.Join(dir, "link.sock") }
