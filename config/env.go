package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// applyEnv puts the OTEL_* variables over the file, as OpenTelemetry's
// "Environment Variable Specification" defines them. OTEL_SERVICE_NAME is left
// alone on purpose: a shim inherits it from containerd, whom it names.
func (c *Config) applyEnv(getenv func(string) string) error {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		c.Trace.Mode = "off"
	}
	if v := getenv("OTEL_PROPAGATORS"); v != "" {
		list := strings.Split(v, ",")
		for i, p := range list {
			list[i] = strings.TrimSpace(p)
			if !slices.Contains(Propagators, list[i]) {
				return fmt.Errorf("environment OTEL_PROPAGATORS: %q is not one of %s", list[i], strings.Join(Propagators, ", "))
			}
		}
		c.Trace.Propagators = list
	}
	if v := getenv("OTEL_TRACES_SAMPLER"); v != "" {
		if err := oneOf("environment OTEL_TRACES_SAMPLER", v, Samplers...); err != nil {
			return err
		}
		c.Trace.Sampler = v
	}
	if v := getenv("OTEL_TRACES_SAMPLER_ARG"); v != "" {
		ratio, err := strconv.ParseFloat(v, 64)
		if err != nil || ratio < 0 || ratio > 1 {
			return fmt.Errorf("environment OTEL_TRACES_SAMPLER_ARG: %q is not a ratio from 0 to 1", v)
		}
		c.Trace.SamplerArg = ratio
	}
	return c.Export.applyEnv(getenv)
}

func (e *Export) applyEnv(getenv func(string) string) error {
	first := func(names ...string) (name, value string) {
		for _, n := range names {
			if v := getenv(n); v != "" {
				return n, v
			}
		}
		return "", ""
	}
	if name, v := first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"); v != "" {
		if err := endpoint("environment "+name, v); err != nil {
			return err
		}
		e.Endpoint, e.FromEnv = v, true
	}
	if name, v := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); v != "" {
		if err := oneOf("environment "+name, v, "http/protobuf", "grpc"); err != nil {
			return err
		}
		e.Protocol = v
	}
	if getenv("OTEL_TRACES_EXPORTER") == "none" {
		e.Endpoint, e.FromEnv = "", false
	}
	return nil
}
