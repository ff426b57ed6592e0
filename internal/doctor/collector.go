package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/client"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/names"
)

// collector looks whether each configured collector takes spans, by sending one, and
// whether the backend has it then.
func collector(ctx context.Context, s *site) (all []Finding) {
	configs, _ := config.Journals(s.getenv)
	for _, cfg := range configs {
		targets := cfg.Export.All()
		if len(targets) == 0 {
			all = append(all, Finding{Level: OK, What: "none is configured: the journal is the store", Where: cfg.Journal.Dir})
		}
		for _, target := range targets {
			found := []Finding{{Level: Note, What: "not asked", Where: hostOf(target.Endpoint), Do: "leave out --no-send to have a test span sent"}}
			if s.Send {
				found = send(ctx, target)
			}
			for _, f := range found {
				if target.Name != "" {
					f.Where = target.Name + ", " + f.Where
				}
				all = append(all, f)
			}
		}
	}
	return all
}

// testSpan is the name of the span that is sent.
const testSpan = "shimtrace doctor"

func send(ctx context.Context, to config.Target) []Finding {
	where := hostOf(to.Endpoint)
	fail := func(err error) []Finding {
		return []Finding{{Level: Error, What: "a test span was not taken: " + err.Error(), Where: where, Do: "correct [export] of the configuration, or start the collector; spans wait in the journal meanwhile"}}
	}
	client, err := client.New(to)
	if err == nil {
		err = client.Start(ctx)
	}
	if err != nil {
		return fail(err)
	}
	defer func() { _ = client.Stop(context.WithoutCancel(ctx)) }()
	trace, id := make([]byte, 16), make([]byte, 8)
	_, _ = rand.Read(trace)
	_, _ = rand.Read(id)
	now := uint64(time.Now().UnixNano())
	name, _ := os.Hostname()
	err = client.UploadTraces(ctx, []*tracepb.ResourceSpans{{
		Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text(names.Service, "shimtrace"), text(names.Host, name)}},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{TraceId: trace, SpanId: id, Name: testSpan, StartTimeUnixNano: now, EndTimeUnixNano: now + 1}}}},
	}})
	var taken *ship.TakenError
	if err != nil && !errors.As(err, &taken) {
		return fail(err)
	}
	f := Finding{Level: OK, What: "it took a test span, trace " + hex.EncodeToString(trace), Where: where}
	if taken != nil {
		f.Level, f.What = Note, f.What+", and said: "+taken.Message
	}
	return append([]Finding{f}, readBack(ctx, to.Endpoint, hex.EncodeToString(trace))...)
}

func text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

// hostOf returns a URL's host: the rest may hold a secret.
func hostOf(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil {
		return u.Host
	}
	return ""
}

const (
	// readTime bounds the wait for a span to be found in the backend, which may index it
	// late.
	readTime = 3 * time.Second
	// queryPort is where Jaeger answers queries (jaeger 1 and 2, query service).
	queryPort = "16686"
)

// readBack looks for the trace in a Jaeger beside the collector. Nothing is found where
// the backend is another one, or elsewhere.
func readBack(ctx context.Context, endpoint, trace string) []Finding {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil
	}
	return readFrom(ctx, "http://"+u.Hostname()+":"+queryPort, trace)
}

func readFrom(ctx context.Context, query, trace string) []Finding {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	client := http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answered := false
	for {
		found, err := asks(ctx, client, query+"/api/traces/"+trace)
		answered = answered || err == nil
		switch {
		case found:
			return []Finding{{Level: OK, What: "Jaeger has the test span", Where: query}}
		case !answered:
			return nil // no Jaeger
		}
		select {
		case <-ctx.Done():
			return []Finding{{Level: Warning, What: fmt.Sprintf("the test span was taken, and Jaeger has not had it within %s", readTime), Where: query, Do: "look into the collector's log and its exporters; a tail sampler may have left it out"}}
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// asks reports whether a Jaeger has the trace.
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
