package otlprecv

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
)

// A Fault is how a receiver treats requests instead of accepting them. HTTP
// requests look at Status, gRPC requests at Code; whichever is zero leaves its
// protocol healthy.
type Fault struct {
	Status int        // answer HTTP requests with this status
	Code   codes.Code // answer gRPC calls with this code
	// RetryAfter goes with Status as a Retry-After header, in whole seconds,
	// and with Code as a RetryInfo.
	RetryAfter time.Duration
	// Message goes with Status, Code and Rejected.
	Message string
	// Rejected accepts the request but answers that so many of its spans were
	// not taken: OTLP's partial success.
	Rejected int64
	// Hang answers nothing until the client gives up or the receiver closes.
	// It comes before all other fields.
	Hang bool
	// Times ends the fault after so many requests; never if zero.
	Times int
}

// Fail makes requests meet the fault from now on. The zero Fault heals.
func (r *Receiver) Fail(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// attempt counts a request and says which fault it meets.
func (r *Receiver) attempt() Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts++
	f := r.fault
	if f.Times == 1 {
		r.fault = Fault{}
	} else if f.Times > 1 {
		r.fault.Times--
	}
	return f
}

// hang waits for the end of the request or of the receiver.
func (r *Receiver) hang(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-r.closed:
	}
}
