package ship

import (
	"fmt"
	"time"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// AllSpans in a [RejectedError] means the whole upload.
const AllSpans = -1

// RejectedError says that the backend will not take spans, and that they need not be
// sent again.
type RejectedError struct {
	// Reason is what the spans are counted under.
	Reason losses.Reason
	// Spans is the number of spans rejected, the others being taken; or AllSpans. The
	// shipper then tries the upload in parts.
	Spans int
	// Tries is how often the answer must be given to the same spans, while the backend
	// takes others, until it is trusted; for an answer that may be no fault of the
	// spans. 0: the backend has said that they are to blame.
	Tries int
	Err   error
}

// Error implements error.
func (e *RejectedError) Error() string {
	if e.Tries > 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("rejected (%s): %v", e.Reason, e.Err)
}

// Unwrap returns the client's error.
func (e *RejectedError) Unwrap() error { return e.Err }

// BusyError says that the backend asks for a pause.
type BusyError struct {
	After time.Duration
	Err   error
}

// Error implements error.
func (e *BusyError) Error() string {
	return fmt.Sprintf("asks for a pause of %v: %v", e.After.Round(time.Second), e.Err)
}

// Unwrap returns the client's error.
func (e *BusyError) Unwrap() error { return e.Err }

// AwayError says that the backend was not reached, whatever the spans are. Any other
// kind of error is a failure that may pass and that the spans may be to blame for.
type AwayError struct{ Err error }

// Error implements error.
func (e *AwayError) Error() string { return e.Err.Error() }

// Unwrap returns the client's error.
func (e *AwayError) Unwrap() error { return e.Err }

// TakenError says that all spans were taken, with a message from the backend.
type TakenError struct{ Message string }

// Error implements error.
func (e *TakenError) Error() string { return e.Message }
