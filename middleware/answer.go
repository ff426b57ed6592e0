package middleware

import (
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// answerReader cuts a stream of bytes that is forwarded by someone else into
// frames, of which it keeps no more than the beginning.
type answerReader struct {
	head    [wire.HeaderLen]byte
	have    int   // bytes of head
	left    int64 // bytes of the payload still to come, or of what is before the first frame
	payload []byte
	blind   bool // another process had the beginning of the payload
}

// resumeAnswers returns the reader of a stream that goes on at a mark.
func resumeAnswers(m handover.Mark) *answerReader {
	a := &answerReader{have: min(int(m.Have), wire.HeaderLen), left: int64(m.Left)}
	copy(a.head[:], m.Head[:])
	a.blind = a.have == wire.HeaderLen && a.left < int64(wire.ParseHeader(a.head[:]).Length)
	return a
}

// mark is where in a frame the reader is.
func (a *answerReader) mark() handover.Mark {
	m := handover.Mark{Left: uint64(a.left), Have: uint32(a.have)}
	copy(m.Head[:], a.head[:])
	return m
}

// within reports whether a frame has begun and is not complete.
func (a *answerReader) within() bool { return a.have > 0 }

// maxAnswer is how much of an answer's payload is looked at, in bytes: the
// status and the well-known fields.
const maxAnswer = 4 << 10

// feed calls f for each frame that chunk completes, with the beginning of its
// payload, valid during the call, unless the reader is blind to it.
func (a *answerReader) feed(chunk []byte, f func(h wire.Header, payload []byte)) {
	for len(chunk) > 0 {
		if a.have == 0 && a.left > 0 { // of no frame
			n := min(a.left, int64(len(chunk)))
			a.left, chunk = a.left-n, chunk[n:]
			continue
		}
		if a.have < wire.HeaderLen {
			n := copy(a.head[a.have:], chunk)
			a.have += n
			chunk = chunk[n:]
			if a.have < wire.HeaderLen {
				return
			}
			a.left = int64(wire.ParseHeader(a.head[:]).Length)
			a.payload = a.payload[:0]
		}
		n := int(min(a.left, int64(len(chunk))))
		part := chunk[:n]
		chunk = chunk[n:]
		a.left -= int64(n)
		if a.left == 0 && len(a.payload) == 0 && !a.blind {
			a.have = 0
			f(wire.ParseHeader(a.head[:]), part[:min(n, maxAnswer)])
			continue
		}
		a.payload = append(a.payload, part[:min(n, maxAnswer-len(a.payload))]...)
		if a.left == 0 {
			a.have = 0
			f(wire.ParseHeader(a.head[:]), a.payload)
			a.blind = false
		}
	}
}
