package client

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shimtrace/shimtrace/internal/config"
)

// TestNoSecretInMessages: strangers repeat all that they were sent, and some hosts
// cannot be reached. No message contains the headers' values, or the endpoint's
// password or query.
func TestNoSecretInMessages(t *testing.T) {
	secrets := []string{"tok-en-secret", "ten-ant-secret", "pass-word-secret", "que-ry-secret"}
	check := func(t *testing.T, err error) {
		t.Helper()
		if err == nil {
			t.Fatal("no error")
		}
		for _, s := range secrets {
			if strings.Contains(err.Error(), s) {
				t.Errorf("%q in %q", s, err)
			}
		}
	}
	configured := func(l net.Listener, protocol string) config.Target {
		cfg := exportTo(l, protocol, "")
		cfg.Headers = map[string]string{"authorization": "Bearer " + secrets[0], "tenant": secrets[1]}
		return cfg
	}
	echo := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Server", r.Header.Get("tenant"))
		w.Header().Set("Location", "https://login.example/?t="+r.Header.Get("tenant"))
		status := http.StatusForbidden
		if r.Header.Get("Content-Encoding") == "" {
			status = http.StatusFound
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, r.Header.Get("Authorization")+" "+r.Header.Get("tenant")+" "+r.RequestURI)
	}
	t.Run("http", func(t *testing.T) {
		for _, compression := range []string{"gzip", "none"} {
			l := listen(t, "127.0.0.1:0")
			serveHandler(t, l, echo)
			cfg := configured(l, "http/protobuf")
			cfg.Compression = compression
			check(t, newClient(t, cfg).UploadTraces(t.Context(), spans("a")))
			cfg.Endpoint = "http://user:" + secrets[2] + "@" + l.Addr().String() + "/?q=" + secrets[3]
			check(t, newClient(t, cfg).UploadTraces(t.Context(), spans("a")))
		}
	})
	t.Run("grpc", func(t *testing.T) {
		l := listen(t, "127.0.0.1:0")
		c := &collector{}
		c.serveGRPC(t, l)
		client := newClient(t, configured(l, "grpc"))
		for _, code := range []codes.Code{codes.Unauthenticated, codes.InvalidArgument, codes.Unavailable, codes.Internal} {
			c.failRPC = func() error { return status.Error(code, "got "+c.headers["authorization"]+" "+c.headers["tenant"]) }
			check(t, client.UploadTraces(t.Context(), spans("a")))
		}
		l2 := listen(t, "127.0.0.1:0")
		serveHandler(t, l2, echo)
		check(t, newClient(t, configured(l2, "grpc")).UploadTraces(t.Context(), spans("a")))
	})
	t.Run("nobody", func(t *testing.T) {
		for _, protocol := range []string{"http/protobuf", "grpc"} {
			l := listen(t, "127.0.0.1:0")
			l.Close()
			cfg := configured(l, protocol)
			cfg.Endpoint = "http://user:" + secrets[2] + "@" + l.Addr().String() + "/?q=" + secrets[3]
			check(t, newClient(t, cfg).UploadTraces(t.Context(), spans("a")))
			cfg.Endpoint = "http://user:" + secrets[2] + "@no-such-host.invalid:1/?q=" + secrets[3]
			check(t, newClient(t, cfg).UploadTraces(t.Context(), spans("a")))
		}
	})
}
