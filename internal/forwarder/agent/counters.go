package agent

import (
	"fmt"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Counters counts what has arrived. It is safe for concurrent use.
type Counters struct {
	// Counters counts the decoded spans.
	span.Counters
	// Bytes are those of decoded payloads.
	Bytes atomic.Uint64
	// SkippedBytes are those of oversized frames.
	SkippedBytes atomic.Uint64
	// Losses counts the lost spans; nil: they are not counted.
	Losses *losses.Tally
}

// payloadError is a payload that could not be decoded. It never quotes the payload, which may
// hold secrets. The connection is unharmed: the next frame can be read.
type payloadError struct {
	Encoding Encoding
	Reason   losses.Reason
	// Offset is where decoding stopped, in bytes from the payload's beginning.
	Offset int
}

func (e *payloadError) Error() string {
	return fmt.Sprintf("decode agent span: %s payload %s at byte %d", e.Encoding, e.Reason, e.Offset)
}
