package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

var errNoURL = errors.New("this is not a URL such as http://127.0.0.1:4318")

// completeEndpoint makes a URL of an endpoint that is a host with a port, if it is valid.
func (t *Target) completeEndpoint() {
	if t.Endpoint == "" || strings.Contains(t.Endpoint, "://") {
		return
	}
	if u, err := envEndpoint(t.Endpoint, t.Protocol, t.Insecure); err == nil {
		t.Endpoint = u
	}
}

// URL returns the URL to which spans are posted over HTTP.
func (t Target) URL() string {
	if t.exact || t.Endpoint == "" {
		return t.Endpoint
	}
	u, err := url.Parse(t.Endpoint)
	if err != nil {
		return t.Endpoint // was checked before
	}
	if t.Protocol == "zipkin" {
		return u.JoinPath("api/v2/spans").String()
	}
	return u.JoinPath("v1/traces").String()
}

// MetricsURL returns the URL to which metrics are posted over HTTP, of a target that
// [Config.MetricsTarget] has returned.
func (t Target) MetricsURL() string {
	if t.exact {
		return t.Endpoint
	}
	u, err := url.Parse(t.Endpoint)
	if err != nil {
		return t.Endpoint // was checked before
	}
	return u.JoinPath("v1/metrics").String()
}

// SetEndpoint sets the collector's base URL, or returns what is wrong with it.
func (t *Target) SetEndpoint(base string) error {
	if base == "" {
		return errNoURL
	}
	if err := checkEndpoint(base); err != nil {
		return err
	}
	t.Endpoint, t.exact = base, false
	return nil
}

// checkEndpoint returns what is wrong with a collector's URL, without the URL: it can
// hold a secret.
func checkEndpoint(value string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		return errNoURL
	case u.User != nil:
		return errors.New("there is a user or a password in the URL, which is not sent: put it into the headers, as authorization")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("there is a query in the URL, which is not sent: put it into the headers")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("the URL's port is not one from 1 to 65535")
		}
	}
	return nil
}

// CheckHeader returns why a name and value cannot be a header of a request (RFC 9110,
// "Fields"). It does not show the value, which may be a secret.
func CheckHeader(name, value string) error {
	const token = "!#$%&'*+-.^_`|~" + letters
	if name == "" || strings.Trim(name, token) != "" {
		return errors.New("this is no header's name")
	}
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return errors.New("there is a line break or another control character in the value")
		}
	}
	return nil
}

// envEndpoint returns the URL for an endpoint as the environment may have it: a URL, or
// for gRPC a host and port, secured by TLS unless insecure (OpenTelemetry Protocol
// Exporter, "Endpoint", "Insecure").
func envEndpoint(value, protocol string, insecure bool) (string, error) {
	if strings.Contains(value, "://") {
		return value, checkEndpoint(value)
	}
	host, port, err := net.SplitHostPort(strings.TrimSuffix(value, "/"))
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || perr != nil || n == 0 || strings.ContainsAny(host, "/@?#%") {
		return "", errors.New("this is neither a URL such as http://127.0.0.1:4318 nor a host with a port")
	}
	if protocol != "grpc" {
		return "", fmt.Errorf("a host with a port is an endpoint for gRPC, and the protocol is %s: write a URL such as http://127.0.0.1:4318", protocol)
	}
	scheme := "https"
	if insecure {
		scheme = "http"
	}
	u := url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port)}
	return u.String(), checkEndpoint(u.String())
}
