package client

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// proxied runs this test in a process whose environment names a proxy, which Go's and
// gRPC's libraries read once. It returns the requests that the proxy got, or nil in the
// process that only waits for the other.
func proxied(t *testing.T, noProxy string) *atomic.Int32 {
	t.Helper()
	const inside = "SHIMTRACE_TEST_PROXY"
	if address := os.Getenv(inside); address != "" {
		l := listen(t, address)
		requests := new(atomic.Int32)
		serveHandler(t, l, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			w.Header().Set("Server", "squid/5.7")
			http.Error(w, "<html><title>Access Denied</title>", http.StatusForbidden)
		})
		return requests
	}
	address := testkit.FreePort(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	proxy := "http://user:pass-word@" + address
	cmd.Env = append(os.Environ(), inside+"="+address, "HTTP_PROXY="+proxy, "HTTPS_PROXY="+proxy, "http_proxy=", "https_proxy=", "NO_PROXY="+noProxy, "no_proxy=")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
	return nil
}

// ownAddress returns an address of this host other than the loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}

// TestProxyNotForThisHost: a proxy for pulling images is not used for the collector on
// the host.
func TestProxyNotForThisHost(t *testing.T) {
	requests := proxied(t, "")
	if requests == nil {
		return
	}
	l := listen(t, "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	g := listen(t, "127.0.0.1:0")
	_, grpcPort, _ := net.SplitHostPort(g.Addr().String())
	c, gc := &collector{}, &collector{}
	c.serveHTTP(t, l)
	gc.serveGRPC(t, g)
	taken := 0
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "localhost", "LOCALHOST", "127.1.2.3", "[::ffff:127.0.0.1]"} {
		cfg := config.Default().Export.Target
		cfg.Endpoint = "http://" + host + ":" + port
		if err := newClient(t, cfg).UploadTraces(t.Context(), spans("a")); err != nil && host != "127.1.2.3" {
			t.Errorf("%s: %v", host, err)
		}
		cfg.Protocol, cfg.Endpoint = "grpc", "http://"+host+":"+grpcPort
		if err := newClient(t, cfg).UploadTraces(t.Context(), spans("a")); err != nil && host != "127.1.2.3" {
			t.Errorf("grpc, %s: %v", host, err)
		}
		if host != "127.1.2.3" {
			taken++
		}
	}
	if requests.Load() > 0 || c.taken() != taken || gc.taken() != taken {
		t.Errorf("the proxy had %d requests, the collectors %d and %d, want %d", requests.Load(), c.taken(), gc.taken(), taken)
	}
	p := newProxy()
	for host, direct := range map[string]bool{ownAddress(t): true, "169.254.1.1": true, "[fe80::1%25eth0]": true, "192.0.2.1": false, "collector.invalid": false} {
		if host == "" {
			continue
		}
		through, err := p.forURL(t.Context(), &url.URL{Scheme: "http", Host: host + ":4318"})
		if err != nil || (through == nil) != direct {
			t.Errorf("%s: proxy %v, %v", host, through, err)
		}
	}
}

// TestProxyInTheWay: a proxy that answers for the collector is named, and loses nothing.
func TestProxyInTheWay(t *testing.T) {
	requests := proxied(t, "direct.invalid")
	if requests == nil {
		reliability.Row(t, reliability.Fault{Area: area,
			Fault: "HTTP_PROXY and HTTPS_PROXY, set to pull images, name a proxy that refuses the collector",
			Pod:   "nothing", Lost: "nothing: a collector on the host is never asked for through it, and the log names it otherwise"})
		return
	}
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		cfg := config.Default().Export.Target
		cfg.Protocol, cfg.Endpoint, cfg.Timeout = protocol, "http://192.0.2.1:4318", config.Duration(5*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := newClient(t, cfg).UploadTraces(ctx, spans("a"))
		cancel()
		text := fmt.Sprint(err)
		if got := meaning(err); got != inDoubt && got != "away" {
			t.Errorf("%s: %s", protocol, got)
		}
		if !strings.Contains(text, "through the proxy http://127.0.0.1:") || !strings.Contains(text, "NO_PROXY") || strings.Contains(text, "pass-word") {
			t.Errorf("%s: says %s", protocol, text)
		}
	}
	if requests.Load() == 0 {
		t.Error("the proxy was not asked")
	}
	if through, err := newProxy().forURL(t.Context(), &url.URL{Scheme: "http", Host: "direct.invalid:4318"}); through != nil || err != nil {
		t.Errorf("NO_PROXY: %v, %v", through, err)
	}
}
