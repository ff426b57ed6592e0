package client

import (
	"context"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// manyTries is how often spans must get an answer that may not be about them, while
// others are taken, until they count as its cause. With the shipper's backoff that
// takes some minutes.
const manyTries = 20

// answer is what the transport has received for an upload. The official clients return
// it as text only, and take any success for a collector's.
type answer struct {
	http *httpAnswer // nil: none was received
	grpc *grpcAnswer
	// left counts the spans that could not be sent: Zipkin has no place for them.
	left int
}

// came reports whether the other side has answered, whatever it is.
func (a *answer) came() bool { return a.http != nil || a.grpc != nil && a.grpc.spoken }

type answerKey struct{}

// answerOf returns the answer of an upload, for the transport to fill in.
func answerOf(ctx context.Context) *answer {
	if a, ok := ctx.Value(answerKey{}).(*answer); ok {
		return a
	}
	return new(answer)
}

// verdict is what an answer means.
type verdict struct {
	// otlp reports whether a collector has answered, in OTLP.
	otlp bool
	// err is the error for the shipper; nil if all spans were taken.
	err error
	// compression reports whether the upload's compression may be the cause.
	compression bool
}

// judge returns the verdict on an upload of so many spans from its answer and the
// official client's error.
func (c *client) judge(seen *answer, spans int, err error) verdict {
	if seen.came() {
		c.address.tls.answered()
	}
	switch {
	case seen.http != nil && c.zipkin:
		return seen.http.judgeZipkin(c.address, seen.left)
	case seen.http != nil:
		return seen.http.judge(c.address, spans)
	case seen.grpc != nil:
		return seen.grpc.judge(c.address, spans)
	case err == nil:
		return verdict{}
	}
	return verdict{err: c.address.unanswered(err)}
}

// taken is the verdict on a success.
func taken(where address, p *coltracepb.ExportTracePartialSuccess, spans int) verdict {
	v := verdict{otlp: true}
	// Neither a negative number nor more than was sent can be true.
	rejected := int(min(max(p.GetRejectedSpans(), 0), int64(spans)))
	message := where.excerpt(p.GetErrorMessage())
	switch {
	case rejected > 0:
		v.err = &ship.RejectedError{Reason: losses.CollectorRefusedSome, Spans: rejected, Err: where.says("takes an upload without some of its "+where.items(), message)}
	case message != "":
		v.err = &ship.TakenError{Message: where.says("takes everything, and warns", message).Error()}
	}
	return v
}

// refused says that the collector will not take the spans.
func refused(reason losses.Reason, err error) error {
	return &ship.RejectedError{Reason: reason, Spans: ship.AllSpans, Err: err}
}

// doubtful says that the upload failed in a way that may be no fault of the spans. They
// are not lost unless others are taken meanwhile.
func doubtful(reason losses.Reason, err error) error {
	return &ship.RejectedError{Reason: reason, Spans: ship.AllSpans, Tries: manyTries, Err: err}
}

// busy says that the collector asks for a pause, if after is positive.
func busy(after time.Duration, err error) error {
	if after <= 0 {
		return err
	}
	return &ship.BusyError{After: after, Err: err}
}
