package client

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// serveBehind serves a collector behind TLS settings and returns its address.
func (c *collector) serveBehind(t *testing.T, protocol string, settings *tls.Config) string {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	if protocol == "grpc" {
		settings.NextProtos = []string{"h2"}
		c.serveGRPC(t, tls.NewListener(l, settings))
	} else {
		c.serveHTTP(t, tls.NewListener(l, settings))
	}
	return "https://" + l.Addr().String()
}

// eachUpload runs a test for each protocol and signal, with an upload to a target.
func eachUpload(t *testing.T, test func(t *testing.T, protocol string, upload func(*testing.T, config.Target) error)) {
	for _, protocol := range []string{overHTTP, overGRPC} {
		t.Run(protocol+", "+traces, func(t *testing.T) {
			test(t, protocol, func(t *testing.T, cfg config.Target) error {
				return newClient(t, cfg).UploadTraces(t.Context(), spans("a"))
			})
		})
		t.Run(protocol+", "+metrics, func(t *testing.T) {
			test(t, protocol, func(t *testing.T, cfg config.Target) error { return exportMetrics(t, cfg) })
		})
	}
}

// exportMetrics sends a metric.
func exportMetrics(t *testing.T, cfg config.Target) error {
	t.Helper()
	m, err := NewMetrics(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(t.Context())
	return m.Export(t.Context(), &metricdata.ResourceMetrics{ScopeMetrics: []metricdata.ScopeMetrics{{Metrics: []metricdata.Metrics{{
		Name: "a", Data: metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, DataPoints: []metricdata.DataPoint[int64]{{Value: 1}}},
	}}}}})
}

// TestTLS: nothing is sent to a server but one whose certificate an authority of the
// configuration has signed for its name, and which is valid. The error says what to do.
func TestTLS(t *testing.T) {
	ours, theirs := testkit.NewAuthority(t), testkit.NewAuthority(t)
	eachUpload(t, func(t *testing.T, protocol string, upload func(*testing.T, config.Target) error) {
		for _, tt := range []struct {
			name   string
			server tls.Certificate
			ca     string
			host   string
			says   string // empty: it is taken
		}{
			{"right", ours.Issue(time.Hour), ours.File(), "", ""},
			{"wrong authority", theirs.Issue(time.Hour), ours.File(), "", "has a certificate of an unknown authority: set ca of [export.target.b] to that authority's"},
			{"the host's authorities", ours.Issue(time.Hour), "", "", "has a certificate of an unknown authority: set ca of [export.target.b] to that authority's"},
			{"expired", ours.Issue(-time.Hour), ours.File(), "", "has a certificate that has expired, or is not valid yet: it is to be renewed there, or the clock of this host to be set; ca of [export.target.b] does not help"},
			{"wrong name", ours.Issue(time.Hour), ours.File(), "localhost", "has a certificate for another name: set endpoint of [export.target.b] to a name that the certificate has"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				c := &collector{}
				cfg := config.Target{Name: "b", Protocol: protocol, Timeout: config.Duration(time.Minute), CA: tt.ca}
				cfg.Endpoint = c.serveBehind(t, protocol, &tls.Config{Certificates: []tls.Certificate{tt.server}})
				if tt.host != "" {
					cfg.Endpoint = strings.Replace(cfg.Endpoint, "127.0.0.1", tt.host, 1)
				}
				err := upload(t, cfg)
				if tt.says == "" {
					if err != nil || c.taken() != 1 {
						t.Errorf("%v, %d taken", err, c.taken())
					}
					return
				}
				if err == nil || !strings.HasSuffix(causeOf(err), cfg.Endpoint+" "+tt.says) || c.taken() > 0 {
					t.Errorf("says %v, %d taken", err, c.taken())
				}
			})
		}
	})
}

// TestRefusedCertificate: a server that wants a certificate, and gets none or one that it does
// not accept, loses nothing and gets nothing; the error says which keys to set, in each version
// of TLS, whether its alert has come or not.
func TestRefusedCertificate(t *testing.T) {
	ours, theirs := testkit.NewAuthority(t), testkit.NewAuthority(t)
	const keys = "cert and key of [export] (OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY)"
	files := func(a *testkit.Authority, valid time.Duration) func(*config.Target) {
		cert, key := a.IssueFiles(valid)
		return func(c *config.Target) { c.Cert, c.Key = cert, key }
	}
	eachUpload(t, func(t *testing.T, protocol string, upload func(*testing.T, config.Target) error) {
		for name, tt := range map[string]struct {
			own  func(*config.Target)
			says string
		}{
			"none":              {func(*config.Target) {}, "wants a certificate of shimtrace: set " + keys},
			"another authority": {files(theirs, time.Hour), "does not accept the certificate of shimtrace: set " + keys + " to one of an authority that it trusts"},
			"expired":           {files(ours, -time.Hour), "does not accept the certificate of shimtrace, which has expired: renew " + keys},
		} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(name+", "+tls.VersionName(version), func(t *testing.T) {
					c := &collector{}
					cfg := config.Target{Protocol: protocol, Timeout: config.Duration(time.Minute), CA: ours.File()}
					tt.own(&cfg)
					cfg.Endpoint = c.serveBehind(t, protocol, &tls.Config{
						Certificates: []tls.Certificate{ours.Issue(time.Hour)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.Pool(), MaxVersion: version,
					})
					for range 5 { // with and without the alert
						err := upload(t, cfg)
						if err == nil || !strings.HasSuffix(causeOf(err), cfg.Endpoint+" "+tt.says) || c.taken() > 0 {
							t.Errorf("says %v, %d taken", err, c.taken())
						}
						var rejected *ship.RejectedError
						if errors.As(err, &rejected) {
							t.Errorf("it could be lost: %v", err)
						}
					}
				})
			}
		}
	})
}

// TestRenewedCertificate: a server that asks for a certificate gets a renewed one without a new
// client.
func TestRenewedCertificate(t *testing.T) {
	ours := testkit.NewAuthority(t)
	for _, protocol := range []string{overHTTP, overGRPC} {
		t.Run(protocol, func(t *testing.T) {
			c := &collector{}
			cfg := exportTo(listen(t, "127.0.0.1:0"), protocol, "")
			cfg.Endpoint = c.serveBehind(t, protocol, &tls.Config{
				Certificates: []tls.Certificate{ours.Issue(time.Hour)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.Pool(),
			})
			cfg.CA = ours.File()
			cfg.Cert, cfg.Key = ours.IssueFiles(-time.Hour)
			client := newClient(t, cfg)
			if client.UploadTraces(t.Context(), spans("a")) == nil {
				t.Error("an expired one is taken")
			}
			testkit.WriteCertificate(t, ours.Issue(time.Hour), cfg.Cert, cfg.Key)
			var err error
			eventually(t, "an upload with the renewed one", func() bool { // gRPC pauses between connections
				err = client.UploadTraces(t.Context(), spans("a"))
				return err == nil
			})
		})
	}
}

// TestMissingCertificates: each file that can't be used is named.
func TestMissingCertificates(t *testing.T) {
	a := testkit.NewAuthority(t)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for name, change := range map[string]func(*config.Target){
		"ca":     func(c *config.Target) { c.CA = missing },
		"cert":   func(c *config.Target) { c.Cert, c.Key = missing, a.File() },
		"no key": func(c *config.Target) { c.Cert, c.Key = a.File(), a.File() },
		"no PEM": func(c *config.Target) {
			c.CA = missing + ".empty"
			if err := os.WriteFile(c.CA, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		cfg := config.Default().Export.Target
		cfg.Endpoint = "https://127.0.0.1:1"
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "[export]") {
			t.Errorf("%s: %v", name, err)
		}
		// The same variables may be meant for another exporter.
		cfg.Endpoint = "http://127.0.0.1:1"
		if _, err := New(cfg); err != nil {
			t.Errorf("%s, without TLS: %v", name, err)
		}
	}
}
