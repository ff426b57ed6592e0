package client

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// httpAnswer is what came back for an upload by HTTP.
type httpAnswer struct {
	status int
	header http.Header
	body   []byte // at most maxAnswer bytes
}

// judge follows OTLP's specification (1.9, "OTLP/HTTP Response") for a collector's
// answer. Any other answer (a proxy's or web server's page, another scheme's) means a
// wrong address and loses no span. A failure without an explanation is not trusted at
// once.
func (a *httpAnswer) judge(where address, spans int) verdict {
	kind := mediaType(a.header)
	if a.status/100 == 2 {
		if msg, ok := successOf(kind, a.body); ok {
			return taken(where, msg.GetPartialSuccess(), spans)
		}
		return verdict{err: doubtful(losses.CollectorFails, a.stranger(where, kind))}
	}
	failure, otlp := failureOf(kind, a.body)
	v := verdict{otlp: otlp}
	// A collector that cannot decode an upload may answer any of these.
	switch a.status {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusNotAcceptable, http.StatusUnprocessableEntity, http.StatusNotImplemented:
		v.compression = true
	}
	if !otlp {
		v.err = a.stranger(where, kind)
	} else {
		v.err = where.says("answers "+statusText(a.status)+where.advice(a.status, ""), where.excerpt(failure.GetMessage()))
	}
	if a.passes() {
		v.err = busy(retryAfter(a.header), v.err)
		return v
	}
	switch a.status {
	case http.StatusRequestEntityTooLarge:
		if otlp {
			v.err = refused(losses.CollectorTooLarge, v.err)
		} else {
			v.err = doubtful(losses.CollectorTooLarge, v.err)
		}
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		switch {
		case !otlp:
			v.err = doubtful(losses.CollectorFails, v.err)
		case tooLarge(failure.GetMessage()):
			v.err = refused(losses.CollectorTooLarge, v.err)
		default:
			v.err = refused(losses.CollectorRefused, v.err)
		}
	default:
		v.err = doubtful(losses.CollectorFails, v.err)
	}
	return v
}

// passes reports whether the status, in OTLP and elsewhere, says that a later attempt may
// succeed.
func (a *httpAnswer) passes() bool {
	switch a.status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return true
	}
	return false
}

// stranger says who has answered instead of a collector, and what to do.
func (a *httpAnswer) stranger(where address, kind string) error {
	what, begin := describe(kind, a.body)
	who := ""
	if server := where.excerpt(a.header.Get("Server")); server != "" {
		who = " by " + server
	}
	if a.status/100 == 3 {
		return where.says(fmt.Sprintf("answers %s%s, a redirection: set the endpoint to the collector itself", statusText(a.status), who),
			where.excerpt(a.header.Get("Location")))
	}
	text := fmt.Sprintf("answers %s%s with %s, which is no OTLP%s%s", statusText(a.status), who, what, where.advice(a.status, string(a.body)), where.throughProxy())
	return where.says(text, where.excerpt(begin))
}

// advice returns what to do about a status.
func (a address) advice(status int, body string) string {
	if wantsTLS(body) {
		return "; this port wants TLS: let the endpoint begin with https://"
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return a.credential()
	case http.StatusProxyAuthRequired:
		return "; the proxy wants a credential"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		if a.signal == metrics {
			return noMetrics
		}
		return noBaseURL
	case http.StatusOK, http.StatusNoContent, http.StatusCreated, http.StatusAccepted:
		return noBaseURL
	case http.StatusRequestEntityTooLarge:
		return "; it takes no upload of this size"
	case http.StatusUnsupportedMediaType:
		return "; does it take OTLP in protobuf?"
	}
	return ""
}

// What to do where nothing takes an upload.
const (
	noBaseURL = "; is the endpoint an OTLP collector's base URL? OTLP over HTTP is at port 4318 as a rule"
	noMetrics = "; if it takes no metrics, set send of [metrics] to \"off\""
)

// credential returns what to do about a refusal.
func (a address) credential() string {
	return "; is a credential wrong or missing in " + a.target.Keys("headers") + "?"
}

// wantsTLS reports whether a server complains that it was spoken to without TLS, in the
// words of Go's, nginx's and Apache's.
func wantsTLS(body string) bool {
	body = strings.ToLower(body[:min(len(body), 4<<10)])
	return strings.Contains(body, "http request to an https server") ||
		strings.Contains(body, "plain http request was sent to https port") ||
		strings.Contains(body, "speaking plain http to an ssl-enabled server port")
}

func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

// retryAfter reads the Retry-After header of RFC 9110: seconds or a date.
func retryAfter(h http.Header) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}
