package client

import (
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
)

// handshakes records whether the backend has asked for our certificate, and which one it got. In
// TLS 1.3 a backend refuses a certificate after the handshake: its alert may come with the
// connection's end, or not at all. It is safe for concurrent use.
type handshakes struct {
	target config.Target

	mu    sync.Mutex
	asked bool             // in the last handshake, with no answer since
	sent  *tls.Certificate // in that handshake; nil: there was none
}

// begun implements [tls.Config.VerifyConnection]. The backend is trusted, and may ask next.
func (h *handshakes) begun(tls.ConnectionState) error {
	h.note(false, nil)
	return nil
}

// certificate implements [tls.Config.GetClientCertificate].
func (h *handshakes) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if h.target.Cert == "" || h.target.Key == "" {
		h.note(true, nil)
		return new(tls.Certificate), nil
	}
	pair, err := h.read()
	h.note(true, pair)
	return pair, err
}

// ownCertificate is how errors about our own certificate begin.
const ownCertificate = "client's certificate"

// read reads our certificate.
func (h *handshakes) read() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(h.target.Cert, h.target.Key)
	if err != nil {
		return nil, fmt.Errorf(ownCertificate+" (%s): %w", h.target.Keys("cert", "key"), err)
	}
	return &pair, nil
}

func (h *handshakes) note(asked bool, sent *tls.Certificate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked, h.sent = asked, sent
}

// answered notes that the backend has answered, and so has accepted the certificate.
func (h *handshakes) answered() { h.note(false, nil) }

// wanted reports whether the backend wants a certificate that it has not accepted yet.
func (h *handshakes) wanted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// remoteAlert is how package tls begins an error that the other side has sent.
const remoteAlert = "remote error: tls: "

// refusedHandshake returns why the backend ends the handshake, and what to do. alert is empty
// if none has come.
func (a address) refusedHandshake(alert string) error {
	a.tls.mu.Lock()
	asked, sent := a.tls.asked, a.tls.sent
	a.tls.mu.Unlock()
	pair := a.target.Keys("cert", "key")
	switch {
	case !asked && !strings.Contains(alert, "certificate"):
		return a.says("refuses TLS as shimtrace speaks it", a.excerpt(alert))
	case a.target.Cert == "":
		return a.says("wants a certificate of shimtrace: set "+pair, "")
	case sent != nil && sent.Leaf != nil && time.Now().After(sent.Leaf.NotAfter):
		return a.says("does not accept the certificate of shimtrace, which has expired: renew "+pair, "")
	}
	return a.says("does not accept the certificate of shimtrace: set "+pair+" to one of an authority that it trusts", a.excerpt(alert))
}

// untrusted returns what to do about the backend's certificate; why is what package x509 says.
func (a address) untrusted(why string) string {
	has := func(words string) bool { return strings.Contains(why, words) }
	switch {
	case has("unknown authority"):
		return "has a certificate of an unknown authority: set " + a.target.Keys("ca") + " to that authority's"
	case has("expired or is not yet valid"):
		return "has a certificate that has expired, or is not valid yet: it is to be renewed there, or the clock of this host to be set; " + a.target.Keys("ca") + " does not help"
	case has("certificate is valid for"), has("is not valid for any names"), has("contain any IP SANs"), has("Common Name"):
		return "has a certificate for another name: set " + a.target.Keys("endpoint") + " to a name that the certificate has"
	}
	return "has a certificate that is not accepted: is " + a.target.Keys("ca") + " right?"
}
