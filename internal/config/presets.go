package config

import (
	"fmt"
	"maps"
	"slices"
)

// preset is what is known of a backend.
type preset struct {
	// endpoint is its base URL; empty if each customer has another one.
	endpoint string
	protocol string // empty: the default
}

// presets are the backends that [export] preset takes. Those on the host have their
// usual ports; hosted ones want a header with a key, which docs/backends.md names.
var presets = map[string]preset{
	// OTLP receivers, with the ports of OTLP's specification.
	"otel-collector": {endpoint: "http://127.0.0.1:4318"},
	"jaeger":         {endpoint: "http://127.0.0.1:4318"},
	"tempo":          {endpoint: "http://127.0.0.1:4318"},
	// The Datadog Agent, once its otlp_config has the HTTP receiver
	// (docs.datadoghq.com/opentelemetry/setup/otlp_ingest_in_the_agent).
	"datadog": {endpoint: "http://127.0.0.1:4318"},
	// Datadog's own intake of OTLP, in its site US1; the others are https://otlp.<site>
	// (docs.datadoghq.com/opentelemetry/setup/otlp_ingest/traces).
	"datadog-intake": {endpoint: "https://otlp.datadoghq.com"},
	"zipkin":         {endpoint: "http://127.0.0.1:9411", protocol: "zipkin"},
	// docs.honeycomb.io/send-data/opentelemetry
	"honeycomb": {endpoint: "https://api.honeycomb.io"},
	// docs.newrelic.com/docs/opentelemetry/best-practices/opentelemetry-otlp
	"newrelic": {endpoint: "https://otlp.nr-data.net"},
	// https://otlp-gateway-<zone>.grafana.net/otlp; grafana.com/docs/grafana-cloud/send-data/otlp
	"grafana-cloud": {},
	// https://<environment>.live.dynatrace.com/api/v2/otlp; docs.dynatrace.com, "OTLP API"
	"dynatrace": {},
}

// usePreset gives a target the defaults of the preset that a file's table names.
func (t *Target) usePreset(keys *node) {
	n := find(keys, []string{"preset"})
	if n == nil || n.broken {
		return
	}
	name, _ := n.value.(string)
	t.Endpoint = presets[name].endpoint
	if p := presets[name].protocol; p != "" {
		t.Protocol = p
	}
}

// checkPreset returns what is wrong with the preset, if one is named.
func (t Target) checkPreset() error {
	if t.Preset == "" {
		return nil
	}
	if err := oneOf(t.Preset, slices.Sorted(maps.Keys(presets))...); err != nil {
		return err
	}
	if t.Endpoint == "" {
		return fmt.Errorf("%s has another address for each customer: set endpoint, too", t.Preset)
	}
	return nil
}
