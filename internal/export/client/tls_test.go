package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
)

// An authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// file writes the authority's certificate.
func (a *authority) file() string { return writePEM(a.t, "CERTIFICATE", a.cert.Raw) }

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue returns a certificate for 127.0.0.1, for servers and clients, valid for so long.
func (a *authority) issue(valid time.Duration) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(valid),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// write writes a certificate and its key over the files.
func write(t *testing.T, c tls.Certificate, cert, key string) {
	t.Helper()
	secret, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

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
	ours, theirs := newAuthority(t), newAuthority(t)
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		for _, tt := range []struct {
			name   string
			server tls.Certificate
			ca     string
			taken  bool
		}{
			{"right", ours.issue(time.Hour), ours.file(), true},
			{"wrong authority", theirs.issue(time.Hour), ours.file(), false},
			{"the host's authorities", ours.issue(time.Hour), "", false},
			{"expired", ours.issue(-time.Hour), ours.file(), false},
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
	ours, theirs := newAuthority(t), newAuthority(t)
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			c := &collector{}
			cfg := exportTo(listen(t, "127.0.0.1:0"), protocol, "")
			cfg.Endpoint = c.serveBehind(t, protocol, &tls.Config{
				Certificates: []tls.Certificate{ours.issue(time.Hour)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.pool(),
			})
			cfg.CA = ours.file()
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
			write(t, theirs.issue(time.Hour), cfg.Cert, cfg.Key)
			refused("another authority's")
			write(t, ours.issue(-time.Hour), cfg.Cert, cfg.Key)
			refused("expired")

			client := newClient(t, cfg)
			_ = client.UploadTraces(t.Context(), spans("a"))
			write(t, ours.issue(time.Hour), cfg.Cert, cfg.Key)
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
	a := newAuthority(t)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for name, change := range map[string]func(*config.Target){
		"ca":     func(c *config.Target) { c.CA = missing },
		"cert":   func(c *config.Target) { c.Cert, c.Key = missing, a.file() },
		"no key": func(c *config.Target) { c.Cert, c.Key = a.file(), a.file() },
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
