package ship

import (
	"errors"
	"fmt"
	"time"
)

// ErrHeld is returned by Run when another process ships the journal.
var ErrHeld = errors.New("ship: another process ships this journal")

// AllSpans in a [RejectedError] means the whole upload.
const AllSpans = -1

// RejectedError is how a client says that the backend will not take spans, and
// that they need not be sent again. Every other error is a failure that may pass.
type RejectedError struct {
	// Reason is one of a small, fixed set of short texts, under which the spans
	// are counted.
	Reason string
	// Spans is how many of the upload were rejected, the others being taken; or
	// AllSpans. Of an upload rejected as a whole the shipper tries the parts.
	Spans int
	// Tries is how often the same upload must be rejected until it is believed:
	// more than once where an answer may also come from a backend in trouble.
	Tries int
	Err   error
}

// Error implements error.
func (e *RejectedError) Error() string { return fmt.Sprintf("rejected (%s): %v", e.Reason, e.Err) }

// Unwrap returns the client's error.
func (e *RejectedError) Unwrap() error { return e.Err }

// BusyError is how a client says that the backend asks for a pause.
type BusyError struct {
	After time.Duration
	Err   error
}

// Error implements error.
func (e *BusyError) Error() string {
	return fmt.Sprintf("busy, asks for a pause of %v: %v", e.After, e.Err)
}

// Unwrap returns the client's error.
func (e *BusyError) Unwrap() error { return e.Err }
