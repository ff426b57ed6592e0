package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/names"
)

// variable is a supported OTEL_* variable, as OpenTelemetry's "Environment Variable
// Specification" and "Protocol Exporter" define it.
type variable struct {
	// names: the first one set to a valid value counts.
	names []string
	key   string // of the file, overridden by the variable; "" if none
	set   func(c *Config, e *environment) error
}

// variables are all that are read, in the order in which they depend on each other. The
// comments are what docs/configuration.md says of them.
// OTEL_SERVICE_NAME is left out on purpose: a shim inherits it from containerd, and it
// names containerd.
var variables = []variable{
	// `true`, which makes it `"off"`, or `false`.
	{[]string{"OTEL_SDK_DISABLED"}, "trace.mode", setDisabled},
	// A list.
	{[]string{"OTEL_PROPAGATORS"}, "trace.propagators", setPropagators},
	// As in the file.
	{[]string{"OTEL_TRACES_SAMPLER"}, "trace.sampler", setSampler},
	// From 0 to 1.
	{[]string{"OTEL_TRACES_SAMPLER_ARG"}, "trace.sampler_arg", setSamplerArg},
	// Attributes, over the same ones of `[resource]`: `name=value,…`, percent-encoded.
	{[]string{"OTEL_RESOURCE_ATTRIBUTES"}, "", setResource},
	// The node's name, which becomes the resource attribute `k8s.node.name` unless that is set.
	{[]string{"K8S_NODE_NAME"}, "", setNode},
	// `http/protobuf` or `grpc`.
	{otlp("PROTOCOL"), "export.protocol", setProtocol},
	// `true` or `false`: without TLS, where the endpoint of the environment is a host with a
	// port.
	{otlp("INSECURE"), "export.insecure", setInsecure},
	// A URL, or a host with a port (`collector:4317`), which means gRPC and, unless
	// `OTEL_EXPORTER_OTLP_INSECURE` says otherwise, TLS. `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`
	// is the whole URL, to which nothing is appended.
	{otlp("ENDPOINT"), "export.endpoint", setEndpoint},
	// Headers, in the place of all in the file: `name=value,…`, percent-encoded.
	{otlp("HEADERS"), "export.headers", setHeaders},
	// A number of milliseconds.
	{otlp("TIMEOUT"), "export.timeout", setTimeout},
	// `gzip` or `none`.
	{otlp("COMPRESSION"), "export.compression", setCompression},
	// A file.
	{otlp("CERTIFICATE"), "export.ca", setCA},
	// A file.
	{otlp("CLIENT_CERTIFICATE"), "export.cert", setCert},
	// A file.
	{otlp("CLIENT_KEY"), "export.key", setKey},
	// The whole URL that spans are posted to; used if `OTEL_TRACES_EXPORTER` is `zipkin`, by
	// default `http://localhost:9411/api/v2/spans`.
	{[]string{"OTEL_EXPORTER_ZIPKIN_ENDPOINT"}, "", setZipkinEndpoint},
	// A number of milliseconds, likewise.
	{[]string{"OTEL_EXPORTER_ZIPKIN_TIMEOUT"}, "", setZipkinTimeout},
	// `none`: nothing is sent; `otlp`; `zipkin`: Zipkin's exporter.
	{[]string{"OTEL_TRACES_EXPORTER"}, "export.endpoint", setExporter},
	// `otlp`, which makes it `"on"`, or `none`.
	{[]string{"OTEL_METRICS_EXPORTER"}, "metrics.send", setMetricsExporter},
	// `cumulative`: counts go over all processes of `collect`.
	{[]string{ofMetrics + "TEMPORALITY_PREFERENCE"}, "", onlyValue("cumulative")},
	// `base2_exponential_bucket_histogram`.
	{[]string{ofMetrics + "DEFAULT_HISTOGRAM_AGGREGATION"}, "", onlyValue("base2_exponential_bucket_histogram")},
	// A number of milliseconds.
	{[]string{"OTEL_METRIC_EXPORT_INTERVAL"}, "metrics.interval", setMetricsInterval},
}

// environment is the state that the variables share.
type environment struct {
	name, value string // of the variable being read; the value tidied, not empty
	insecure    bool
	protocol    bool // the environment sets the protocol
	foreign     bool // the sampler is not supported
	// Zipkin's exporter, which counts if OTEL_TRACES_EXPORTER names it.
	zipkinEndpoint string
	zipkinTimeout  Duration
}

// applyEnv applies the OTEL_* variables over the file, whose keys are in set. Values
// that are not understood count as not set, and are reported.
func (c *Config) applyEnv(getenv func(string) string, set *node, r *Report) {
	if path := otelFile(getenv); path != "" {
		c.applyDeclared(path, getenv, set, r)
		return
	}
	c.applyVariables(c.OTLP.others(getenv), func(name string) string { return "environment " + name }, set, r)
}

// applyVariables applies the variables of an environment. where returns what
// messages call one.
func (c *Config) applyVariables(getenv, where func(string) string, set *node, r *Report) {
	v, own := reading{getenv, where, set, r}, c.Export.Target
	var e environment
	for _, variable := range variables {
		v.apply(variable, c, &e, variable.names...)
	}
	if dropHalfPair(&c.Export.Target) {
		v.ignore(fmt.Errorf("environment %sCLIENT_CERTIFICATE, _KEY: %w", ofAll, errHalfPair))
	}
	v.applyMetrics(c, own)
}

// reading is an environment that is read over a file, whose keys are in set.
type reading struct {
	getenv, where func(string) string
	set           *node
	report        *Report
}

func (v *reading) ignore(err error) { v.report.Ignored = append(v.report.Ignored, err) }

// apply applies a variable by the first of its names that is set to a value that is
// understood, and reports whether one is.
func (v *reading) apply(of variable, c *Config, e *environment, names ...string) bool {
	for _, name := range names {
		if e.name, e.value = name, tidy(v.getenv(name)); e.value == "" {
			continue
		}
		before := *c
		err := of.set(c, e)
		if err != nil {
			v.ignore(fmt.Errorf("%s: %w", v.where(name), err))
		}
		if of.key != "" && find(v.set, parseKey(of.key)) != nil && !reflect.DeepEqual(before, *c) {
			v.report.Overrides = append(v.report.Overrides, fmt.Sprintf("%s overrides %s of the configuration", v.where(name), of.key))
		}
		if err == nil || errors.Is(err, errPartly) {
			return true
		}
	}
	return false
}

// errPartly is wrapped by errors of variables that were partly understood.
var errPartly = errors.New("the rest holds")

// tidy removes white space, and the quotes that a unit file or an environment file has
// left around a value.
func tidy(value string) string {
	value = strings.TrimSpace(value)
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		value = strings.TrimSpace(value[1 : n-1])
	}
	return value
}

// items returns the parts of a list, without empty ones.
func items(value string) []string {
	var list []string
	for _, item := range strings.Split(value, ",") {
		if item = tidy(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// choose returns the allowed value that equals value, ignoring case.
func choose(value string, allowed ...string) (string, error) {
	for _, a := range allowed {
		if strings.EqualFold(value, a) {
			return a, nil
		}
	}
	return "", fmt.Errorf("%q is not one of %s; it is ignored", value, strings.Join(allowed, ", "))
}

func setDisabled(c *Config, e *environment) error {
	v, err := choose(e.value, "true", "false")
	if v == "true" {
		c.Trace.Mode = "off"
	}
	return err
}

func setPropagators(c *Config, e *environment) error {
	var list []string
	var errs []error
	for _, item := range items(e.value) {
		p, err := choose(item, propagators...)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !slices.Contains(list, p):
			list = append(list, p)
		}
	}
	if len(list) > 1 {
		list = slices.DeleteFunc(list, func(p string) bool { return p == "none" })
	}
	if len(list) > 0 {
		c.Trace.Propagators = list
		return partly(errs)
	}
	return errors.Join(errs...)
}

// partly joins the errors of a variable that was otherwise understood.
func partly(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w; %w", errors.Join(errs...), errPartly)
}

func setSampler(c *Config, e *environment) error {
	s, err := choose(e.value, samplers...)
	if e.foreign = err != nil; !e.foreign {
		c.Trace.Sampler = s
	}
	return err
}

func setSamplerArg(c *Config, e *environment) error {
	if e.foreign {
		return nil // the argument of an unsupported sampler
	}
	v, err := strconv.ParseFloat(e.value, 64)
	if err == nil {
		err = ratio(v)
	}
	if err != nil {
		return fmt.Errorf("%q is not a ratio from 0 to 1; it is ignored", e.value)
	}
	c.Trace.SamplerArg = v
	return nil
}

// setResource sets attributes over the file's. Values are percent-encoded.
func setResource(c *Config, e *environment) error {
	attrs, err := pairs(e.value)
	c.addResource(attrs)
	return err
}

// addResource sets attributes of the resource in a copy: other configurations share the map.
func (c *Config) addResource(attrs map[string]string) {
	merged := maps.Clone(c.Resource)
	if merged == nil {
		merged = make(map[string]string)
	}
	maps.Copy(merged, attrs)
	c.Resource = merged
}

// setNode sets the attribute unless the file or OTEL_RESOURCE_ATTRIBUTES does.
func setNode(c *Config, e *environment) error {
	if c.Resource[names.Node] == "" {
		c.addResource(map[string]string{names.Node: e.value})
	}
	return nil
}

// pairs parses a list of names with percent-encoded values. Errors never quote the
// input: it can be secret.
func pairs(value string) (map[string]string, error) {
	all := make(map[string]string)
	var errs []error
	for i, item := range items(value) {
		name, v, ok := strings.Cut(item, "=")
		name = strings.TrimSpace(name)
		decoded, err := url.PathUnescape(strings.TrimSpace(v))
		if !ok || name == "" || err != nil {
			errs = append(errs, fmt.Errorf("entry %d is not a name, =, and a percent-encoded value; it is ignored", i+1))
			continue
		}
		all[name] = decoded
	}
	return all, partly(errs)
}

func setProtocol(c *Config, e *environment) error {
	p, err := choose(e.value, "http/protobuf", "grpc")
	if err == nil {
		c.Export.Protocol, e.protocol = p, true
	}
	return err
}

func setInsecure(_ *Config, e *environment) error {
	v, err := choose(e.value, "true", "false")
	e.insecure = v == "true"
	return err
}

// setEndpoint takes a host with a port as a gRPC endpoint unless the environment sets
// another protocol. containerd's own configuration does so, and since 1.7.19 it puts
// such an endpoint into its shims' environment (tracing/plugin/otlp.go,
// convertOTLPToEnv).
//
// The endpoint of metrics is a backend of its own: nothing that the file says of another one
// goes there.
func setEndpoint(c *Config, e *environment) error {
	alone := strings.HasPrefix(e.name, ofMetrics)
	protocol := c.Export.Protocol
	if alone && !e.protocol {
		protocol = defaultTarget().Protocol
	}
	if !e.protocol && !strings.Contains(e.value, "://") {
		protocol = "grpc"
	}
	endpoint, err := envEndpoint(e.value, protocol, e.insecure)
	if err == nil && c.OTLP.serves(endpoint) {
		err = errItself
	}
	if err != nil {
		return fmt.Errorf("%w; it is ignored", err)
	}
	if alone {
		c.Export.Target = defaultTarget()
	}
	c.Export.Endpoint, c.Export.Protocol, c.Export.alone = endpoint, protocol, alone
	// The variable for one signal holds the whole URL, the one for all signals a base.
	c.Export.exact = alone || strings.HasPrefix(e.name, ofTraces)
	return nil
}

func setHeaders(c *Config, e *environment) error {
	headers, err := pairs(e.value)
	for name, value := range headers {
		if herr := CheckHeader(name, value); herr != nil {
			delete(headers, name)
			err = fmt.Errorf("header %q: %w; it is ignored", name, herr)
		}
	}
	if len(headers) > 0 {
		c.Export.Headers = headers
	}
	return err
}

// setTimeout takes milliseconds.
func setTimeout(c *Config, e *environment) error {
	d, err := milliseconds(e.value)
	if err == nil {
		c.Export.Timeout = d
	}
	return err
}

func setMetricsExporter(c *Config, e *environment) error {
	known, err := exporterOf(e.value, "otlp", "none")
	if known != "" {
		c.Metrics.Send = map[string]string{"otlp": "on", "none": "off"}[known]
	}
	return err
}

// onlyValue is for variables of which one value is supported: the one that always
// applies.
func onlyValue(value string) func(*Config, *environment) error {
	return func(_ *Config, e *environment) error {
		_, err := choose(e.value, value)
		return err
	}
}

func setMetricsInterval(c *Config, e *environment) error {
	d, err := milliseconds(e.value)
	if err == nil {
		c.Metrics.Interval = d
	}
	return err
}

func milliseconds(value string) (Duration, error) {
	ms, err := strconv.ParseUint(value, 10, 31)
	if err != nil || ms == 0 {
		return 0, fmt.Errorf("%q is not a number of milliseconds; it is ignored", value)
	}
	return Duration(time.Duration(ms) * time.Millisecond), nil
}

func setCompression(c *Config, e *environment) error {
	v, err := choose(e.value, "gzip", "none")
	if err == nil {
		c.Export.Compression = v
	}
	return err
}

func setCA(c *Config, e *environment) error   { return setFile(&c.Export.CA, e.value) }
func setCert(c *Config, e *environment) error { return setFile(&c.Export.Cert, e.value) }
func setKey(c *Config, e *environment) error  { return setFile(&c.Export.Key, e.value) }

// setFile makes a relative path absolute: the process that reads the file may be
// another one.
func setFile(target *string, path string) error {
	full, err := filepath.Abs(path)
	if err == nil {
		*target = full
	}
	return err
}

// setZipkinEndpoint takes the whole URL that spans are posted to.
func setZipkinEndpoint(_ *Config, e *environment) error {
	if err := checkEndpoint(e.value); err != nil {
		return fmt.Errorf("%w; it is ignored", err)
	}
	e.zipkinEndpoint = e.value
	return nil
}

// setZipkinTimeout takes milliseconds.
func setZipkinTimeout(_ *Config, e *environment) (err error) {
	e.zipkinTimeout, err = milliseconds(e.value)
	return err
}

// useZipkin makes Zipkin's exporter the one that counts. The specification's default
// endpoint is a Zipkin on the host.
func (e *environment) useZipkin(x *Target) {
	if x.Protocol != "zipkin" || e.zipkinEndpoint != "" {
		x.Protocol, x.exact = "zipkin", true
		x.Endpoint = cmp.Or(e.zipkinEndpoint, "http://localhost:9411/api/v2/spans")
	}
	x.Timeout = cmp.Or(e.zipkinTimeout, x.Timeout)
}

// setExporter takes "otlp", which is the exporter that the other variables configure,
// "zipkin", which is Zipkin's exporter, or "none".
func setExporter(c *Config, e *environment) error {
	known, err := exporterOf(e.value, "otlp", "zipkin", "none")
	switch known {
	case "none":
		c.Export.Endpoint, c.Export.exact, c.Export.Targets = "", false, nil
	case "zipkin":
		e.useZipkin(&c.Export.Target)
	}
	return err
}

// exporterOf returns the exporter of a list that counts: the first known one, "none" only if
// there is no other, and "" if none is known.
func exporterOf(value string, known ...string) (exporter string, err error) {
	var errs []error
	for _, item := range items(value) {
		v, err := choose(item, known...)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if exporter = v; v != "none" {
			break
		}
	}
	if exporter != "" {
		return exporter, partly(errs)
	}
	return "", errors.Join(errs...)
}
