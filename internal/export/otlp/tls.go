package otlp

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
)

// envTLS reads the certificate variables of OTLP's specification for HTTP: the official
// client ignores them when it is given a transport. It returns nil if none is set.
func envTLS() (*tls.Config, error) {
	var cfg tls.Config
	if path := env("CERTIFICATE"); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("environment OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("environment OTEL_EXPORTER_OTLP_CERTIFICATE: %s holds no certificate in PEM", path)
		}
	}
	if cert, key := env("CLIENT_CERTIFICATE"), env("CLIENT_KEY"); cert != "" && key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("environment OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, _KEY: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if cfg.RootCAs == nil && cfg.Certificates == nil {
		return nil, nil
	}
	return &cfg, nil
}

// plaintext reports whether the endpoint's scheme excludes TLS. The variables for
// certificates, which may be meant for another exporter, are then ignored.
func plaintext(cfg config.Export) bool {
	return strings.HasPrefix(strings.ToLower(cfg.Endpoint), "http://")
}
