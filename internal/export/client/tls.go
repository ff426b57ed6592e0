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
func newTLS(cfg config.Target) (*tls.Config, error) {
	if strings.HasPrefix(strings.ToLower(cfg.Endpoint), "http://") {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CA != "" {
		pem, err := os.ReadFile(cfg.CA)
		if err != nil {
			return nil, fmt.Errorf("certificate authority (ca of [export], OTEL_EXPORTER_OTLP_CERTIFICATE): %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authority (ca of [export], OTEL_EXPORTER_OTLP_CERTIFICATE): %s holds no certificate in PEM", cfg.CA)
		}
	}
	if cfg.Cert != "" && cfg.Key != "" {
		read := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
			if err != nil {
				return nil, fmt.Errorf("client's certificate (cert and key of [export], OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _KEY): %w", err)
			}
			return &pair, nil
		}
		if _, err := read(); err != nil {
			return nil, err
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return read() }
	}
	return c, nil
}
