package otlp

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// proxy is what the environment says of proxies (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).
// On a host of containers it is set for the images' sake, and so it may know nothing
// of collectors: one on the host itself is never reached through it, by whatever of
// its names and addresses. For others the environment is right, as OpenTelemetry's
// SDKs have it.
type proxy struct {
	choose func(*url.URL) (*url.URL, error)

	mu    sync.Mutex
	local map[string]localHost
	used  string // the last one chosen
}

type localHost struct {
	is   bool
	when time.Time
}

const (
	// keepLocal is how long it is believed which host a name is.
	keepLocal = time.Minute
	// lookupLocal bounds how long that is asked.
	lookupLocal = 2 * time.Second
)

func newProxy() *proxy {
	return &proxy{choose: httpproxy.FromEnvironment().ProxyFunc(), local: make(map[string]localHost)}
}

// of is for http.Transport.
func (p *proxy) of(req *http.Request) (*url.URL, error) { return p.forURL(req.Context(), req.URL) }

// forURL returns the proxy to reach a URL through, nil if there is none.
func (p *proxy) forURL(ctx context.Context, u *url.URL) (*url.URL, error) {
	through, err := p.choose(u)
	if err != nil || through == nil {
		return nil, err
	}
	if p.isLocal(ctx, u.Hostname()) {
		through = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = ""
	if through != nil {
		p.used = through.Scheme + "://" + through.Host // without user and password
	}
	return through, nil
}

// betweenGRPC reports whether gRPC's library may ask the environment, as which it asks
// for the proxy of https in any case.
func (p *proxy) betweenGRPC(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return true
	}
	through, err := p.forURL(context.Background(), &url.URL{Scheme: "https", Host: u.Host})
	return err != nil || through != nil
}

// isLocal reports whether a host is this one.
func (p *proxy) isLocal(ctx context.Context, host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return isOwn(ip)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	p.mu.Lock()
	known, ok := p.local[host]
	p.mu.Unlock()
	if ok && time.Since(known.when) < keepLocal {
		return known.is
	}
	ctx, cancel := context.WithTimeout(ctx, lookupLocal)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	is := err == nil && len(ips) > 0 && !slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !isOwn(ip) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.local[host] = localHost{is, time.Now()} // of one endpoint, so one entry
	return is
}

// isOwn reports whether an address is this host's, or cannot be reached through
// another one.
func isOwn(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() {
		return true
	}
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().WithZone("") == ip
	})
}

// throughProxy says that a proxy may be to blame, if there is one between.
func (a address) throughProxy() string {
	if a.proxy == nil {
		return ""
	}
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	if a.proxy.used == "" {
		return ""
	}
	return " (through the proxy " + a.proxy.used + " of HTTP_PROXY or HTTPS_PROXY; name the collector's host in NO_PROXY if it shall not be asked)"
}
