package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/sleep"
)

const (
	// readTime bounds the wait for a span to be found in the backend, which may index it
	// late.
	readTime = 3 * time.Second
	// queryPort is where Jaeger answers queries (jaeger 1 and 2, query service).
	queryPort = "16686"
)

// backend is something that can be asked for a trace.
type backend struct{ name, traces string }

// readBack looks for the trace in the Zipkin that it was sent to, or in a Jaeger beside the
// collector. Nothing is found where the backend is another one, or elsewhere.
func readBack(ctx context.Context, to config.Target, trace string) []Finding {
	u, err := url.Parse(to.Endpoint)
	if err != nil {
		return nil
	}
	if to.Protocol == "zipkin" {
		return backend{"Zipkin", u.Scheme + "://" + u.Host + "/api/v2/trace/"}.has(ctx, trace)
	}
	return backend{"Jaeger", "http://" + u.Hostname() + ":" + queryPort + "/api/traces/"}.has(ctx, trace)
}

// has looks for the trace until it is there.
func (b backend) has(ctx context.Context, trace string) []Finding {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	client := http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answered := false
	for {
		found, err := asks(ctx, client, b.traces+trace)
		answered = answered || err == nil
		switch {
		case found:
			return []Finding{{Level: OK, What: b.name + " has the test span", Where: hostOf(b.traces)}}
		case !answered:
			return nil // there is none
		}
		if !sleep.For(ctx, 100*time.Millisecond) {
			return []Finding{{Level: Warning, What: fmt.Sprintf("the test span was taken, and %s has not had it within %s", b.name, readTime), Where: hostOf(b.traces), Do: "look into the collector's log and its exporters; a tail sampler may have left it out"}}
		}
	}
}

// asks reports whether a backend has the trace.
func asks(ctx context.Context, client http.Client, address string) (bool, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return false, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return false, err
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK, nil
}
