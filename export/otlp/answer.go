package otlp

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shimtrace/shimtrace/export/ship"
)

// Reasons for which spans count as rejected.
const (
	// ReasonRefused: the collector found the upload invalid.
	ReasonRefused = "refused by the collector"
	// ReasonTooLarge: the collector takes no upload as large as a single span's.
	ReasonTooLarge = "too large for the collector"
	// ReasonFailing: the collector failed on the same upload again and again.
	ReasonFailing = "collector fails on it"
	// ReasonPartial: the collector took the upload without these spans.
	ReasonPartial = "partly refused by the collector"
)

// manyTries is how often the collector may fail on an upload, in a way that says
// nothing about why, until the upload is taken to be the cause. With the shipper's
// backoff that takes some minutes.
const manyTries = 20

// answer is what the transport has seen of the collector's answer. The official
// clients return it as text only.
type answer struct {
	httpStatus int // 0: none
	retryAfter time.Duration
	partial    *coltracepb.ExportTracePartialSuccess
}

type answerKey struct{}

// answerOf returns the answer to be filled in for an upload.
func answerOf(ctx context.Context) *answer {
	if a, ok := ctx.Value(answerKey{}).(*answer); ok {
		return a
	}
	return new(answer)
}

// judge turns an upload's error into what it means for the shipper.
func (a *answer) judge(err error) error {
	if n := a.partial.GetRejectedSpans(); n > 0 {
		msg := a.partial.GetErrorMessage()
		return &ship.RejectedError{Reason: ReasonPartial, Spans: int(n), Err: errors.New(msg)}
	}
	if a.partial != nil {
		return nil // a warning: everything was taken
	}
	switch {
	case err == nil:
		return nil
	case a.httpStatus >= 300:
		return a.judgeHTTP(err)
	case a.httpStatus == 0:
		if s, ok := status.FromError(err); ok {
			return judgeGRPC(s, err)
		}
	}
	return err
}

// judgeHTTP follows OTLP's specification (1.9, "OTLP/HTTP Response") in what may
// be retried, but for two things. A wrong address or credential says nothing about
// the spans, so it may pass. And a failure without a word about why is not
// believed at once.
func (a *answer) judgeHTTP(err error) error {
	switch a.httpStatus {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return busy(a.retryAfter, err)
	case http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return &ship.RejectedError{Reason: ReasonRefused, Spans: ship.AllSpans, Err: err}
	case http.StatusRequestEntityTooLarge:
		return &ship.RejectedError{Reason: ReasonTooLarge, Spans: ship.AllSpans, Err: err}
	}
	if a.httpStatus >= 500 {
		return &ship.RejectedError{Reason: ReasonFailing, Spans: ship.AllSpans, Tries: manyTries, Err: err}
	}
	return err
}

// judgeGRPC follows the specification ("OTLP/gRPC Response") in the same way.
func judgeGRPC(s *status.Status, err error) error {
	switch s.Code() {
	case codes.InvalidArgument:
		return &ship.RejectedError{Reason: ReasonRefused, Spans: ship.AllSpans, Err: err}
	case codes.ResourceExhausted:
		// The gRPC libraries use this code for messages over their limit, too.
		if strings.Contains(s.Message(), "larger than max") {
			return &ship.RejectedError{Reason: ReasonTooLarge, Spans: ship.AllSpans, Err: err}
		}
		return busy(retryDelay(s), err)
	case codes.Internal, codes.Unknown, codes.FailedPrecondition, codes.AlreadyExists, codes.NotFound:
		return &ship.RejectedError{Reason: ReasonFailing, Spans: ship.AllSpans, Tries: manyTries, Err: err}
	}
	return busy(retryDelay(s), err)
}

func busy(after time.Duration, err error) error {
	if after <= 0 {
		return err
	}
	return &ship.BusyError{After: after, Err: err}
}

func retryDelay(s *status.Status) time.Duration {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// retryAfter reads the header of RFC 9110, seconds or a date.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return time.Until(t)
	}
	return 0
}
