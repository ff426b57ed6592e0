package backends

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
)

// same fails unless a backend has the journal's spans, each once and unchanged: ids,
// parents, names, kinds, times, states, events, links, attributes, the resource and the
// scope. foreign are prefixes of attributes that the backend adds.
func same(t *testing.T, want, got []otlprecv.Span, foreign ...string) {
	t.Helper()
	byID := make(map[string]otlprecv.Span)
	for _, g := range got {
		if _, twice := byID[g.ID]; twice {
			t.Errorf("%s (%s) is there twice", g.Name, g.ID)
		}
		byID[g.ID] = g
	}
	if len(byID) != len(want) {
		t.Errorf("the backend has %d spans, the journal %d", len(byID), len(want))
	}
	kinds, failed, children := make(map[tracepb.Span_SpanKind]bool), 0, 0
	for _, w := range want {
		g, there := byID[w.ID]
		if !there {
			t.Errorf("no %s (%s)", w.Name, w.ID)
			continue
		}
		kinds[w.Kind] = true
		if w.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
			failed++
		}
		if w.ParentID != "" {
			children++
		}
		if a, b := plain(w.Span, nil), plain(g.Span, foreign); !proto.Equal(a, b) {
			t.Errorf("%s differs:\n%s\nwant\n%s", w.Name, protojson.Format(b), protojson.Format(a))
		}
		if !reflect.DeepEqual(w.Resource, g.Resource) || w.Scope != g.Scope {
			t.Errorf("%s: resource %v, scope %s; want %v, %s", w.Name, g.Resource, g.Scope, w.Resource, w.Scope)
		}
	}
	if len(kinds) < 2 || failed == 0 || children == 0 {
		t.Errorf("%d kinds, %d failed, %d with a parent: too few to compare", len(kinds), failed, children)
	}
}

// plain returns a span with its attributes in one order, and without foreign ones.
func plain(s *tracepb.Span, foreign []string) *tracepb.Span {
	s = proto.CloneOf(s)
	s.Attributes = slices.DeleteFunc(s.Attributes, func(a *commonpb.KeyValue) bool {
		return slices.ContainsFunc(foreign, func(p string) bool { return strings.HasPrefix(a.Key, p) })
	})
	order := func(attributes []*commonpb.KeyValue) {
		slices.SortFunc(attributes, func(a, b *commonpb.KeyValue) int { return cmp.Compare(a.Key, b.Key) })
	}
	order(s.Attributes)
	for _, e := range s.Events {
		order(e.Attributes)
	}
	for _, l := range s.Links {
		order(l.Attributes)
	}
	if s.Status == nil {
		s.Status = new(tracepb.Status)
	}
	slices.SortStableFunc(s.Events, func(a, b *tracepb.Span_Event) int {
		return cmp.Or(cmp.Compare(a.TimeUnixNano, b.TimeUnixNano), cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	return s
}
