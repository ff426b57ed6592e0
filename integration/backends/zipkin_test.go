package backends

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// A zipkinSpan is what Zipkin's API answers, in its units: microseconds.
type zipkinSpan struct {
	TraceID, ID, ParentID, Name, Kind string
	Timestamp, Duration               int64
	Shared                            bool
	LocalEndpoint                     struct{ ServiceName string }
	Tags                              map[string]string
	Annotations                       []struct {
		Timestamp int64
		Value     string
	}
}

// TestZipkin compares what a real Zipkin shows with the journal: ids, parents, names,
// kinds, times, services, errors, events, attributes and the resource.
func TestZipkin(t *testing.T) {
	jar := toolset.Zipkin.Jar(toolset.Zipkin.Needed(t))
	s := start(t, `preset = "zipkin"`)
	s.serve(s.answers("http://127.0.0.1:9411/health"), "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-jar", jar)
	want := s.run()
	got := make(map[string]zipkinSpan)
	until(t, "all spans to be in Zipkin", func() bool {
		for _, w := range want {
			var trace []zipkinSpan
			if _, there := got[w.ID]; there {
				continue
			}
			answer, err := s.get("http://127.0.0.1:9411/api/v2/trace/" + w.TraceID)
			if err != nil || json.Unmarshal(answer, &trace) != nil {
				return false
			}
			for _, z := range trace {
				got[z.ID] = z
			}
		}
		return len(got) >= len(want)
	})
	if len(got) != len(want) {
		t.Errorf("Zipkin has %d spans, the journal %d", len(got), len(want))
	}
	failed := 0
	for _, w := range want {
		z, there := got[w.ID]
		if !there {
			t.Errorf("no %s (%s)", w.Name, w.ID)
			continue
		}
		if w.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
			failed++
		}
		for _, difference := range differences(w, z) {
			t.Errorf("%s: %s", w.Name, difference)
		}
	}
	if failed == 0 {
		t.Error("no span has failed: errors are not compared")
	}
	var services []string
	answer, err := s.get("http://127.0.0.1:9411/api/v2/services")
	check(t, err)
	check(t, json.Unmarshal(answer, &services))
	if len(services) == 0 {
		t.Error("Zipkin lists no service")
	}
}

var zipkinKinds = map[tracepb.Span_SpanKind]string{tracepb.Span_SPAN_KIND_SERVER: "SERVER", tracepb.Span_SPAN_KIND_CLIENT: "CLIENT"}

func differences(w otlprecv.Span, z zipkinSpan) (all []string) {
	compare := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			all = append(all, fmt.Sprintf("%s %v, want %v", what, got, want))
		}
	}
	compare("trace", z.TraceID, w.TraceID)
	compare("parent", z.ParentID, w.ParentID)
	compare("name", z.Name, strings.ToLower(w.Name))
	compare("kind", z.Kind, zipkinKinds[w.Kind])
	compare("shared", z.Shared, false)
	compare("service", z.LocalEndpoint.ServiceName, strings.ToLower(w.Service()))
	// Zipkin's library rounds to microseconds.
	const micro = 1000
	compare("begin", z.Timestamp, (w.StartTimeUnixNano+micro/2)/micro)
	compare("duration", z.Duration, max((w.EndTimeUnixNano-w.StartTimeUnixNano+micro/2)/micro, 1))
	_, isError := z.Tags["error"]
	compare("error", isError, w.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR)
	compare("message", z.Tags["error"], w.GetStatus().GetMessage())
	compare("events", len(z.Annotations), len(w.Events))
	for i := range min(len(z.Annotations), len(w.Events)) {
		if !strings.Contains(z.Annotations[i].Value, w.Events[i].GetName()) {
			compare("event", z.Annotations[i].Value, w.Events[i].GetName())
		}
	}
	for key, value := range w.Attrs {
		compare("attribute "+key, z.Tags[key], value)
	}
	for key, value := range w.Resource {
		if key != "service.name" {
			compare("resource "+key, z.Tags[key], value)
		}
	}
	compare("scope", z.Tags["otel.scope.name"], w.Scope)
	for i, l := range w.Links {
		compare("link", z.Tags[fmt.Sprint("otlp.link.", i)], fmt.Sprintf("%x|%x", l.TraceId, l.SpanId))
	}
	return all
}
