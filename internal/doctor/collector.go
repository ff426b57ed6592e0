package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
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

// collector checks whether each configured collector takes spans, by sending one, and
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
	return append([]Finding{f}, readBack(ctx, to, hex.EncodeToString(trace))...)
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
