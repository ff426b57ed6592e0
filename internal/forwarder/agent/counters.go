package agent

import (
	"fmt"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Counters counts what arrived. It is safe for concurrent use.
type Counters struct {
	// Counters has what became of spans.
	span.Counters
	// Bytes are those of the payloads that were decoded.
	Bytes atomic.Uint64
	// SkippedBytes are those of oversized frames.
	SkippedBytes atomic.Uint64
	// Losses counts what was lost of it; nil: nothing.
	Losses *losses.Tally
}

// PayloadError says that a payload could not be decoded. It never quotes the
// payload, which may hold secrets. The connection is unharmed: the next frame
// can be read.
type PayloadError struct {
	Encoding Encoding
	Reason   losses.Reason
	// Offset is where in the payload decoding stopped, in bytes.
	Offset int
}

func (e *PayloadError) Error() string {
	return fmt.Sprintf("decode agent span: %s payload %s at byte %d", e.Encoding, e.Reason, e.Offset)
}
