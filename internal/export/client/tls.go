package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
)

// newTLS returns what cfg says of certificates; nil if the endpoint's scheme excludes
// TLS. The certificates may then be meant for another exporter of the same environment.
//
// The client's own certificate is read anew for each connection, so that a renewed one
// is used at once.
func newTLS(cfg config.Target) (*tls.Config, *handshakes, error) {
	h := &handshakes{target: cfg}
	if strings.HasPrefix(strings.ToLower(cfg.Endpoint), "http://") {
		return nil, h, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, VerifyConnection: h.begun, GetClientCertificate: h.certificate}
	if cfg.CA != "" {
		pem, err := os.ReadFile(cfg.CA)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate authority (%s): %w", cfg.Keys("ca"), err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("certificate authority (%s): %s holds no certificate in PEM", cfg.Keys("ca"), cfg.CA)
		}
	}
	if cfg.Cert != "" && cfg.Key != "" {
		if _, err := h.read(); err != nil {
			return nil, nil, err
		}
	}
	return c, h, nil
}
