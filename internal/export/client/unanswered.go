package client

import (
	"context"
	"errors"
	"net"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// unanswered says why there is no answer, and what to do, in words that are the same at
// each attempt (unlike ports and addresses of sockets).
func (a address) unanswered(err error) error {
	var unreadable *ship.AwayError // a file with a header
	if errors.As(err, &unreadable) {
		return unreadable
	}
	text := err.Error()
	has := func(words string) bool { return strings.Contains(text, words) }
	away := func(what, detail string) error { return &ship.AwayError{Err: a.says(what, detail)} }

	var dns *net.DNSError
	var op *net.OpError
	switch {
	// net/http quotes the bytes it has read: an HTTP/2 frame begins with a length below
	// 64 KiB, a TLS alert with 21 and the version.
	case has(`malformed HTTP response "\x00`):
		return away("speaks HTTP/2 only, as gRPC does: set "+a.target.Keys("protocol")+" to \"grpc\", or the port for OTLP over HTTP, 4318 as a rule", "")
	case has(`malformed HTTP response "\x15\x03`):
		return away("wants TLS: let the endpoint begin with https://", "")
	case has("malformed HTTP"):
		return away("speaks no HTTP: is it an OTLP collector's port?", "")
	case has("server gave HTTP response to HTTPS client"), has("first record does not look like a TLS handshake"):
		return away("speaks without TLS: let the endpoint begin with http://", "")
	case has(remoteAlert):
		_, alert, _ := strings.Cut(text, remoteAlert)
		return &ship.AwayError{Err: a.refusedHandshake(strings.TrimRight(alert, `"`))}
	case has(ownCertificate):
		_, why, _ := strings.Cut(text, ownCertificate)
		return away("is not reached, since shimtrace has no certificate to show: correct "+a.target.Keys("cert", "key"), a.excerpt(strings.TrimRight(why, `"`)))
	case has("x509:"):
		_, why, _ := strings.Cut(text, "x509: ")
		return away(a.untrusted(why), a.excerpt(strings.TrimRight(why, `"`)))
	case has("error reading server preface") && a.tls.wanted():
		return &ship.AwayError{Err: a.refusedHandshake("")}
	case has("error reading server preface"):
		return away("does not answer in HTTP/2, as gRPC does: is it OTLP over HTTP, or does it want TLS (https://)? Set "+a.target.Keys("endpoint", "protocol"), "")
	case has("failed to do connect handshake"):
		return away("is not reached: the proxy between refuses the connection"+a.throughProxy(), "")
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return away("is not reached, since the proxy is not"+a.throughProxy(), a.excerpt(reason(op.Err)))
	case errors.As(err, &dns), has("no such host"), has("produced zero addresses"):
		return away("has a name that is not known", "")
	case has("connection refused"):
		return away("is not reached"+a.throughProxy(), "connection refused")
	case errors.As(err, &op) && op.Op == "dial", has("while dialing"), has("handshake"):
		return away("is not reached"+a.throughProxy(), a.excerpt(reason(err)))
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded, has("Client.Timeout"):
		return doubtful(losses.CollectorFails, a.says("does not answer in time", ""))
	case a.tls.wanted(): // whatever the end of the connection is called
		return &ship.AwayError{Err: a.refusedHandshake("")}
	case has("EOF"), has("connection reset"), has("broken pipe"), has("RST_STREAM"), has("GOAWAY"), has("closing"), has("use of closed"), has("closed idle connection"), has("readLoopPeek"), has("connection is being forcefully terminated"):
		return doubtful(losses.CollectorFails, a.says("ends the connection without an answer"+a.throughProxy(), ""))
	}
	return doubtful(losses.CollectorFails, a.says("does not answer", a.excerpt(reason(err))))
}

// reason returns the innermost error's text, which usually contains no address.
func reason(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			break
		}
		err = next
	}
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return strings.Trim(text, `"`)
}
