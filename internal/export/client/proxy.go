package client

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

// proxy chooses a proxy from the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY). On a
// host of containers these are set to pull images and may not take collectors into
// account. So a collector on the host itself is never reached through a proxy,
// whichever of the host's names and addresses it has. For others the environment
// decides, as in OpenTelemetry's SDKs.
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
	// keepLocal is how long it is remembered whether a name is this host.
	keepLocal = time.Minute
	// lookupLocal bounds that lookup.
	lookupLocal = 2 * time.Second
)

func newProxy() *proxy {
	return &proxy{choose: httpproxy.FromEnvironment().ProxyFunc(), local: make(map[string]localHost)}
}

// of implements http.Transport's Proxy.
func (p *proxy) of(req *http.Request) (*url.URL, error) { return p.forURL(req.Context(), req.URL) }

// forURL returns the proxy for a URL; nil: none.
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

// betweenGRPC reports whether gRPC's library may take its proxy from the environment.
// It always asks for the proxy for https.
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
	p.local[host] = localHost{is, time.Now()} // there is one endpoint, so one entry
	return is
}

// isOwn reports whether an address is this host's, or link-local, which no proxy
// reaches.
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

// throughProxy names the proxy that may be to blame, if one was used.
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
