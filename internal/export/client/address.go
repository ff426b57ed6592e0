package client

import (
	"net/url"
	"strings"
	"unicode"

	"github.com/shimtrace/shimtrace/internal/config"
)

// address is the endpoint as messages may name it, and the secrets that they must not
// show: no password shall get into a log.
type address struct {
	name   string
	signal string // what is sent there
	target config.Target
	hidden *secrets
	proxy  *proxy
	tls    *handshakes
}

// The signals that are sent.
const (
	traces  = "traces"
	metrics = "metrics"
)

func newAddress(cfg config.Target, signal string, p *proxy, hidden *secrets, h *handshakes) address {
	a := address{name: "the collector", signal: signal, target: cfg, hidden: hidden, proxy: p, tls: h}
	if u, err := url.Parse(cfg.Endpoint); err == nil && u.Host != "" {
		a.name = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
		if password, ok := u.User.Password(); ok {
			hidden.add(password)
		}
		hidden.add(u.RawQuery)
	}
	for _, v := range cfg.Headers {
		hidden.add(v)
	}
	return a
}

// items returns what an upload of the signal consists of, for messages.
func (a address) items() string {
	if a.signal == metrics {
		return "points"
	}
	return "spans"
}

// maxExcerpt bounds the part of a foreign text in a message, in bytes.
const maxExcerpt = 160

// excerpt returns the beginning of a foreign text on one line, without the secrets that
// were sent: the answer may repeat them.
func (a address) excerpt(text string) string {
	const enough = 16 * maxExcerpt // a secret that is cut here lies behind the excerpt
	text = strings.ToValidUTF8(text[:min(len(text), enough)], "\uFFFD")
	text = a.hidden.hide(text)
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(text) > maxExcerpt {
		text = strings.ToValidUTF8(text[:maxExcerpt], "") + "…"
	}
	return text
}

// says returns an error about the answer from the address: what is the same at each
// attempt; detail may differ each time.
func (a address) says(what, detail string) error {
	return &said{cause: a.name + " " + what, detail: detail}
}

// said is an error of one cause whose text may differ from time to time.
type said struct{ cause, detail string }

// Error implements error.
func (e *said) Error() string {
	if e.detail == "" {
		return e.cause
	}
	return e.cause + ": " + e.detail
}

// Cause returns the part of the text that is the same at each attempt, for callers that
// report each cause once (package console).
func (e *said) Cause() string { return e.cause }
