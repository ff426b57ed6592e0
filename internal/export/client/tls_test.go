package client

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
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

// TestTLS: spans are sent only to a server whose certificate an authority of the
// configuration has signed, and which is valid.
func TestTLS(t *testing.T) {
	ours, theirs := testkit.NewAuthority(t), testkit.NewAuthority(t)
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		for _, tt := range []struct {
			name   string
			server tls.Certificate
			ca     string
			taken  bool
		}{
			{"right", ours.Issue(time.Hour), ours.File(), true},
			{"wrong authority", theirs.Issue(time.Hour), ours.File(), false},
			{"the host's authorities", ours.Issue(time.Hour), "", false},
			{"expired", ours.Issue(-time.Hour), ours.File(), false},
		} {
			t.Run(protocol+", "+tt.name, func(t *testing.T) {
				c := &collector{}
				cfg := exportTo(listen(t, "127.0.0.1:0"), protocol, "")
				cfg.Endpoint = c.serveBehind(t, protocol, &tls.Config{Certificates: []tls.Certificate{tt.server}})
				cfg.CA = tt.ca
				got := meaning(newClient(t, cfg).UploadTraces(t.Context(), spans("a")))
				if want := map[bool]string{true: "taken", false: "away"}[tt.taken]; got != want || (c.taken() == 1) != tt.taken {
					t.Errorf("%s, %d taken; want %s", got, c.taken(), want)
				}
			})
		}
	}
}

// TestMutualTLS: a server that asks for a certificate gets ours, also a renewed one,
// without a new client. One that it does not trust loses no span.
func TestMutualTLS(t *testing.T) {
	ours, theirs := testkit.NewAuthority(t), testkit.NewAuthority(t)
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			c := &collector{}
			cfg := exportTo(listen(t, "127.0.0.1:0"), protocol, "")
			cfg.Endpoint = c.serveBehind(t, protocol, &tls.Config{
				Certificates: []tls.Certificate{ours.Issue(time.Hour)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.Pool(),
			})
			cfg.CA = ours.File()
			refused := func(why string) {
				t.Helper()
				err := newClient(t, cfg).UploadTraces(t.Context(), spans("a"))
				if got := meaning(err); err == nil || strings.Contains(got, "refused") || c.taken() > 0 {
					t.Errorf("%s: %s, %v, %d taken", why, got, err, c.taken())
				}
			}
			refused("without a certificate")
			dir := t.TempDir()
			cfg.Cert, cfg.Key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
			testkit.WriteCertificate(t, theirs.Issue(time.Hour), cfg.Cert, cfg.Key)
			refused("another authority's")
			testkit.WriteCertificate(t, ours.Issue(-time.Hour), cfg.Cert, cfg.Key)
			refused("expired")

			client := newClient(t, cfg)
			_ = client.UploadTraces(t.Context(), spans("a"))
			testkit.WriteCertificate(t, ours.Issue(time.Hour), cfg.Cert, cfg.Key)
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // gRPC pauses between connections
				err := client.UploadTraces(t.Context(), spans("a"))
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("renewed: %v", err)
				}
			}
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
