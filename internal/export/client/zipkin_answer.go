package client

import (
	"errors"
	"net/http"

	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/losses"
)

var errNoZipkinSpan = errors.New("spans without a start or a valid id are no spans for Zipkin")

// judgeZipkin reads the answer of Zipkin's API: 202 without a body, or a failure with a
// text (zipkin2-api.yaml, "POST /spans"). Any other success is some other program's.
func (a *httpAnswer) judgeZipkin(where address, left int) verdict {
	kind := mediaType(a.header)
	switch {
	case a.status == http.StatusAccepted && len(a.body) == 0:
		v := verdict{otlp: true}
		if left > 0 {
			v.err = &ship.RejectedError{Reason: losses.CollectorRefusedSome, Spans: left, Err: errNoZipkinSpan}
		}
		return v
	case a.status/100 == 2:
		what, begin := describe(kind, a.body)
		return verdict{err: doubtful(losses.CollectorFails, where.says("answers "+statusText(a.status)+" with "+what+", and Zipkin says 202 without a body: is the endpoint Zipkin's? Its port is 9411 as a rule"+where.throughProxy(), where.excerpt(begin)))}
	}
	_, begin := describe(kind, a.body)
	err := where.says("answers "+statusText(a.status)+a.adviceZipkin(where)+where.throughProxy(), where.excerpt(begin))
	v := verdict{compression: a.status == http.StatusBadRequest || a.status == http.StatusUnsupportedMediaType}
	if a.passes() {
		v.err = busy(retryAfter(a.header), err)
		return v
	}
	switch a.status {
	case http.StatusRequestEntityTooLarge:
		v.err = refused(losses.CollectorTooLarge, err)
	default:
		v.err = doubtful(losses.CollectorFails, err)
	}
	return v
}

func (a *httpAnswer) adviceZipkin(where address) string {
	if a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed {
		return "; is the endpoint Zipkin's base URL? Its port is 9411 as a rule"
	}
	if a.status == http.StatusUnsupportedMediaType {
		return "; does it take Zipkin's JSON, version 2?"
	}
	return where.advice(a.status, string(a.body))
}
