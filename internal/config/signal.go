package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Prefixes of OpenTelemetry's variables for exporters: of all signals, and of one each.
const (
	ofAll     = "OTEL_EXPORTER_OTLP_"
	ofTraces  = ofAll + "TRACES_"
	ofMetrics = ofAll + "METRICS_"
)

// otlp returns the two names of an exporter variable: for traces, and for all signals.
func otlp(name string) []string { return []string{ofTraces + name, ofAll + name} }

// MetricsTarget returns where metrics are sent, false if they go nowhere: to the first target
// that speaks OTLP, that of [export] itself first, which the environment may have changed for
// metrics alone.
func (c Config) MetricsTarget() (Target, bool) {
	if c.Metrics.Send != "on" {
		return Target{}, false
	}
	e := c.Export
	if c.Metrics.own != nil {
		e.Target = *c.Metrics.own
	}
	all := e.All()
	i := slices.IndexFunc(all, func(t Target) bool { return t.Protocol != "zipkin" })
	if i < 0 {
		return Target{}, false
	}
	return all[i], true
}

// applyMetrics finds what the variables make of [export]'s target for metrics. Variables for
// traces alone do not count. own is the target before any variable was applied.
func (v *reading) applyMetrics(c *Config, own Target) {
	of := Config{OTLP: c.OTLP, Export: Export{Target: own}}
	var e environment
	for _, variable := range variables {
		name, exporters := strings.CutPrefix(variable.names[0], ofTraces)
		if !exporters {
			continue
		}
		if !v.apply(variable, &of, &e, ofMetrics+name) {
			again := *v
			again.report = new(Report) // what is wrong with it was said for spans
			again.apply(variable, &of, &e, ofAll+name)
		}
	}
	if dropHalfPair(&of.Export.Target) && tidy(v.getenv(ofMetrics+"CLIENT_KEY"))+tidy(v.getenv(ofMetrics+"CLIENT_CERTIFICATE")) != "" {
		v.ignore(fmt.Errorf("environment %sCLIENT_CERTIFICATE, _KEY: %w", ofMetrics, errHalfPair))
	}
	if !reflect.DeepEqual(of.Export.Target, c.Export.Target) {
		c.Metrics.own = &of.Export.Target
	}
}

var errHalfPair = errors.New("one is set without the other; it is ignored")

// dropHalfPair removes a certificate without its key, or a key without its certificate, and
// reports whether there was one.
func dropHalfPair(t *Target) bool {
	if (t.Cert == "") == (t.Key == "") {
		return false
	}
	t.Cert, t.Key = "", ""
	return true
}
