package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// UnixPath returns the path of an address of [OTLP.Listen] that is a Unix socket.
func UnixPath(address string) (path string, ok bool) {
	path, ok = strings.CutPrefix(address, "unix:")
	if rest, url := strings.CutPrefix(path, "//"); url {
		path = rest // unix:///run/s, as exporters write it
	}
	return path, ok
}

// serves reports whether an exporter's endpoint, a URL or a host with a port, is one of
// the addresses.
func (o OTLP) serves(endpoint string) bool {
	path, isUnix := UnixPath(endpoint)
	host := endpoint
	if u, err := url.Parse(endpoint); err == nil && strings.Contains(endpoint, "://") {
		host = u.Host
	}
	name, port, _ := net.SplitHostPort(strings.TrimSuffix(host, "/"))
	return slices.ContainsFunc(o.Listen, func(address string) bool {
		if own, ok := UnixPath(address); ok || isUnix {
			return ok && isUnix && filepath.Clean(own) == filepath.Clean(path)
		}
		at, err := netip.ParseAddrPort(address)
		if err != nil || at.Port() == 0 || port != strconv.Itoa(int(at.Port())) {
			return false
		}
		ip, err := netip.ParseAddr(name)
		return strings.EqualFold(name, "localhost") || err == nil && ip.Unmap() == at.Addr()
	})
}

// errItself: spans would go round in a circle.
var errItself = errors.New("this is the host's own OTLP endpoint (listen of [otlp]), not a collector")

// others returns the environment without exporters' settings if these name the host's
// own OTLP endpoint. A shim inherits containerd's environment, and containerd is to send
// its spans there; ours are in the journal already. Those of metrics alone stay.
func (o OTLP) others(getenv func(string) string) func(string) string {
	for _, name := range otlp("ENDPOINT") {
		if value := tidy(getenv(name)); value != "" {
			if !o.serves(value) {
				return getenv
			}
			return func(name string) string {
				if strings.HasPrefix(name, ofAll) && !strings.HasPrefix(name, ofMetrics) {
					return ""
				}
				return getenv(name)
			}
		}
	}
	return getenv
}
