package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/names"
)

// ConfigFileEnv names the environment variable with the path of a declarative configuration
// file, as OpenTelemetry's specification has it ("Declarative configuration").
const ConfigFileEnv = "OTEL_CONFIG_FILE"

// otelFile returns the path of the declarative configuration file; empty: there is none.
func otelFile(getenv func(string) string) string { return tidy(getenv(ConfigFileEnv)) }

// declared is what a declarative configuration file says, in the words of the environment: its
// keys are the variables' (opentelemetry-configuration, "otel-sdk-migration-config.yaml").
type declared struct {
	path   string
	getenv func(string) string
	env    map[string]said // by the variable's name
	level  string          // of the log; empty: not said
	// exports: there is an exporter, by the prefix of its variables. That of spans replaces
	// the target of [export] as a whole.
	exports map[string]bool
	ignored []error
}

// said is what the file says for a variable, and where.
type said struct {
	value string
	from  *yamlNode
	key   string
}

// declare reads a declarative configuration file. The error is about the whole of it.
func declare(path string, getenv func(string) string) (*declared, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the path is not absolute: the processes that read it have other working directories")
	}
	text, err := readBounded(path)
	if err != nil {
		var perr *os.PathError
		if errors.As(err, &perr) {
			err = perr.Err
		}
		return nil, err
	}
	root, err := readYAML(text)
	if err != nil {
		return nil, err
	}
	d := &declared{path: path, getenv: getenv, env: make(map[string]said), exports: make(map[string]bool)}
	format := root.table["file_format"]
	if format == nil {
		return nil, Mistake{root.line, root.column, "file_format is missing: this is no declarative configuration"}
	}
	if v, ok := d.text(format, "file_format"); !ok || !strings.HasPrefix(v, "1.") {
		return nil, Mistake{format.line, format.column, "file_format: only versions 1.x are understood"}
	}
	d.top(root)
	return d, nil
}

// each calls, for each key of a mapping, the function that known has for that key. Other
// keys are ignored, with a report. A mapping that is null counts as absent.
func (d *declared) each(n *yamlNode, at string, known map[string]func(v *yamlNode, at string)) {
	if n.kind != yamlTable {
		if n.kind != yamlScalar || !null(n) {
			d.ignore(n, at, "expected a mapping; it is ignored")
		}
		return
	}
	for _, key := range n.keys {
		v, path := n.table[key], strings.TrimPrefix(at+"."+key, ".")
		f, ok := known[key]
		switch {
		case !ok:
			d.ignore(v, path, "shimtrace does not use it; it is ignored")
		case f != nil:
			f(v, path)
		}
	}
}

// items calls f with each item of a list. A list that is null counts as absent.
func (d *declared) items(n *yamlNode, at string, f func(v *yamlNode, at string)) {
	if n.kind != yamlList {
		if n.kind != yamlScalar || !null(n) {
			d.ignore(n, at, "expected a list; it is ignored")
		}
		return
	}
	for i, v := range n.list {
		f(v, fmt.Sprintf("%s[%d]", at, i))
	}
}

func (d *declared) ignore(n *yamlNode, at, why string) {
	if len(d.ignored) < maxMistakes {
		d.ignored = append(d.ignored, fmt.Errorf("%s %s: %w", ConfigFileEnv, d.path, Mistake{n.line, n.column, at + ": " + why}))
	}
}

// set returns a function that gives a variable the value of a scalar.
func (d *declared) set(name string) func(*yamlNode, string) {
	return func(n *yamlNode, at string) {
		if v, ok := d.text(n, at); ok && v != "" {
			d.put(name, n, at, v)
		}
	}
}

func (d *declared) put(name string, n *yamlNode, at, value string) {
	d.env[name] = said{value, n, at}
}

// add returns a function that appends the value of a scalar to a list.
func (d *declared) add(to *[]string) func(*yamlNode, string) {
	return func(n *yamlNode, at string) {
		if v, ok := d.text(n, at); ok && v != "" {
			*to = append(*to, v)
		}
	}
}

// skip is for keys that have no meaning for shimtrace, and whose values do not matter.
var skip func(*yamlNode, string)

func (d *declared) top(root *yamlNode) {
	d.each(root, "", map[string]func(*yamlNode, string){
		"file_format": skip, "logger_provider": skip,
		"disabled":        d.set("OTEL_SDK_DISABLED"),
		"log_level":       d.logLevel,
		"resource":        d.resource,
		"propagator":      d.propagator,
		"tracer_provider": d.tracerProvider,
		"meter_provider":  d.meterProvider,
	})
}

// logLevel takes the name of a severity. Severities of one kind (info, info2, …) are
// one level here.
func (d *declared) logLevel(n *yamlNode, at string) {
	v, ok := d.text(n, at)
	if !ok || v == "" {
		return
	}
	for name, level := range map[string]string{"trace": "debug", "debug": "debug", "info": "info", "warn": "warn", "error": "error", "fatal": "error"} {
		if strings.TrimRight(v, "1234") == name {
			d.level = level
			return
		}
	}
	d.ignore(n, at, "this is no severity; it is ignored")
}

func (d *declared) resource(n *yamlNode, at string) {
	var pairs, first []string
	d.each(n, at, map[string]func(*yamlNode, string){
		"schema_url": skip, "detection/development": skip,
		"attributes_list": d.add(&first),
		"attributes": func(n *yamlNode, at string) {
			d.pairs(n, at, "type", func(name, value string) {
				if name != names.Service { // which is the inner shim's
					pairs = append(pairs, name+"="+url.PathEscape(value))
				}
			})
		},
	})
	if all := append(first, pairs...); len(all) > 0 {
		d.put("OTEL_RESOURCE_ATTRIBUTES", n, at, strings.Join(all, ","))
	}
}

// pairs calls f with each name and value of a list of them.
func (d *declared) pairs(n *yamlNode, at, also string, f func(name, value string)) {
	d.items(n, at, func(n *yamlNode, at string) {
		var name, value string
		d.each(n, at, map[string]func(*yamlNode, string){
			"name":  func(n *yamlNode, at string) { name, _ = d.text(n, at) },
			"value": func(n *yamlNode, at string) { value, _ = d.text(n, at) },
			also:    skip,
		})
		switch {
		case strings.ContainsAny(name, ",=%") || name == "":
			d.ignore(n, at, "this is no name that can be given; it is ignored")
		case value != "":
			f(name, value)
		}
	})
}

func (d *declared) propagator(n *yamlNode, at string) {
	var all []string
	d.each(n, at, map[string]func(*yamlNode, string){
		"composite": func(n *yamlNode, at string) {
			d.items(n, at, func(n *yamlNode, at string) { all = append(all, n.keys...) })
		},
		"composite_list": func(n *yamlNode, at string) {
			v, _ := d.text(n, at)
			all = append(all, items(v)...)
		},
	})
	if len(all) > 0 {
		d.put("OTEL_PROPAGATORS", n, at, strings.Join(all, ","))
	}
}

func (d *declared) tracerProvider(n *yamlNode, at string) {
	d.each(n, at, map[string]func(*yamlNode, string){
		"sampler": func(n *yamlNode, at string) { d.sampler(n, at, "") },
		"processors": func(n *yamlNode, at string) {
			d.items(n, at, func(n *yamlNode, at string) {
				d.each(n, at, map[string]func(*yamlNode, string){"batch": d.processor, "simple": d.processor})
			})
		},
	})
}

// sampler takes a sampler, whose name in the environment begins with the prefix.
func (d *declared) sampler(n *yamlNode, at, prefix string) {
	use := func(name string) func(*yamlNode, string) {
		return func(n *yamlNode, at string) { d.put("OTEL_TRACES_SAMPLER", n, at, prefix+name) }
	}
	known := map[string]func(*yamlNode, string){
		"always_on": use("always_on"), "always_off": use("always_off"),
		"trace_id_ratio_based": func(n *yamlNode, at string) {
			use("traceidratio")(n, at)
			d.each(n, at, map[string]func(*yamlNode, string){"ratio": d.set("OTEL_TRACES_SAMPLER_ARG")})
			if d.env["OTEL_TRACES_SAMPLER_ARG"].value == "" {
				d.put("OTEL_TRACES_SAMPLER_ARG", n, at, "1")
			}
		},
	}
	if prefix == "" {
		known["parent_based"] = func(n *yamlNode, at string) {
			d.put("OTEL_TRACES_SAMPLER", n, at, "parentbased_always_on")
			d.each(n, at, map[string]func(*yamlNode, string){
				"root":                  func(n *yamlNode, at string) { d.sampler(n, at, "parentbased_") },
				"remote_parent_sampled": d.only("always_on"), "local_parent_sampled": d.only("always_on"),
				"remote_parent_not_sampled": d.only("always_off"), "local_parent_not_sampled": d.only("always_off"),
			})
		}
	}
	d.each(n, at, known)
}

// only returns a function that has any other sampler than the named one ignored.
func (d *declared) only(name string) func(*yamlNode, string) {
	return func(n *yamlNode, at string) { d.each(n, at, map[string]func(*yamlNode, string){name: skip}) }
}

// processor takes the exporter of a processor. How spans are batched is not
// configured.
func (d *declared) processor(n *yamlNode, at string) {
	d.each(n, at, map[string]func(*yamlNode, string){
		"schedule_delay": skip, "export_timeout": skip, "max_queue_size": skip, "max_export_batch_size": skip,
		"exporter": d.exporters(ofTraces, "traces", nil),
	})
}

func (d *declared) meterProvider(n *yamlNode, at string) {
	d.each(n, at, map[string]func(*yamlNode, string){
		"readers": func(n *yamlNode, at string) {
			d.items(n, at, func(n *yamlNode, at string) {
				d.each(n, at, map[string]func(*yamlNode, string){"periodic": d.reader})
			})
		},
	})
}

// reader takes the exporter of a reader. Whoever declares one wants metrics to be
// sent.
func (d *declared) reader(n *yamlNode, at string) {
	d.each(n, at, map[string]func(*yamlNode, string){
		"timeout":  skip,
		"interval": d.set("OTEL_METRIC_EXPORT_INTERVAL"),
		"exporter": d.exporters(ofMetrics, "metrics", map[string]func(*yamlNode, string){
			"temporality_preference":        d.onlyText("cumulative"),
			"default_histogram_aggregation": d.onlyText("base2_exponential_bucket_histogram"),
		}),
	})
	if d.exports[ofMetrics] {
		d.put("OTEL_METRICS_EXPORTER", n, at, "otlp")
	}
}

// exporters returns a function that takes the exporter of a signal, whose variables have
// the prefix. also has the keys that only this signal has.
func (d *declared) exporters(prefix, signal string, also map[string]func(*yamlNode, string)) func(*yamlNode, string) {
	return func(n *yamlNode, at string) {
		d.each(n, at, map[string]func(*yamlNode, string){
			"otlp_http": func(n *yamlNode, at string) {
				d.exporter(n, at, prefix, "http/protobuf", "http://localhost:4318/v1/"+signal, also)
			},
			"otlp_grpc": func(n *yamlNode, at string) { d.exporter(n, at, prefix, "grpc", "http://localhost:4317", also) },
		})
	}
}

func (d *declared) exporter(n *yamlNode, at, prefix, protocol, endpoint string, also map[string]func(*yamlNode, string)) {
	if d.exports[prefix] {
		d.ignore(n, at, "there is an exporter above, and further targets are [export.target] of shimtrace's own file; it is ignored")
		return
	}
	d.exports[prefix] = true
	name := func(part string) string { return prefix + part }
	d.put(name("PROTOCOL"), n, at, protocol)
	d.put(name("ENDPOINT"), n, at, endpoint)
	d.put(name("COMPRESSION"), n, at, "none")
	var pairs, first []string
	known := map[string]func(*yamlNode, string){
		"max_request_size": skip, "max_response_size": skip,
		"endpoint":    d.set(name("ENDPOINT")),
		"compression": d.set(name("COMPRESSION")),
		"timeout":     d.set(name("TIMEOUT")),
		"encoding":    d.onlyText("protobuf"),
		"headers": func(n *yamlNode, at string) {
			d.pairs(n, at, "", func(name, value string) { pairs = append(pairs, name+"="+url.PathEscape(value)) })
		},
		"headers_list": d.add(&first),
		"tls": func(n *yamlNode, at string) {
			d.each(n, at, map[string]func(*yamlNode, string){
				"ca_file": d.set(name("CERTIFICATE")), "cert_file": d.set(name("CLIENT_CERTIFICATE")), "key_file": d.set(name("CLIENT_KEY")),
				"insecure": d.set(name("INSECURE")),
			})
		},
	}
	maps.Copy(known, also)
	d.each(n, at, known)
	if all := append(first, pairs...); len(all) > 0 {
		d.put(name("HEADERS"), n, at, strings.Join(all, ","))
	}
}

// onlyText returns a function that has any other text than want ignored.
func (d *declared) onlyText(want string) func(*yamlNode, string) {
	return func(n *yamlNode, at string) {
		if v, ok := d.text(n, at); ok && v != "" && v != want {
			d.ignore(n, at, "only "+want+" is supported; it is ignored")
		}
	}
}

func null(n *yamlNode) bool {
	return !n.quoted && slices.Contains([]string{"", "~", "null", "Null", "NULL"}, n.text)
}

// text returns a scalar with its references replaced; empty: it is null. It reports false if
// n is no scalar, or if a reference in it is wrong.
func (d *declared) text(n *yamlNode, at string) (text string, ok bool) {
	if n.kind != yamlScalar {
		d.ignore(n, at, "expected one value; it is ignored")
		return "", false
	}
	text, err := substitute(n.text, d.getenv)
	if err != nil {
		d.ignore(n, at, err.Error()+"; it is ignored")
		return "", false
	}
	if !n.quoted && null(&yamlNode{text: text}) {
		return "", true
	}
	return text, true
}

var (
	errNoRef   = errors.New("a reference to a variable is written ${NAME} or ${NAME:-default}, and $$ is a dollar sign")
	errTooLong = errors.New("with its variables it is too long")
)

// substitute replaces the references to environment variables in a text, once
// (specification, "Environment variable substitution"). Errors do not quote the
// text.
func substitute(text string, getenv func(string) string) (string, error) {
	var b strings.Builder
	for {
		at := strings.IndexByte(text, '$')
		if at < 0 {
			b.WriteString(text)
			break
		}
		b.WriteString(text[:at])
		text = text[at:]
		switch {
		case strings.HasPrefix(text, "$$"):
			b.WriteByte('$')
			text = text[2:]
		case strings.HasPrefix(text, "${"):
			ref, rest, ok := strings.Cut(text[2:], "}")
			name, other, _ := strings.Cut(strings.TrimPrefix(ref, "env:"), ":-")
			if !ok || name == "" || strings.Trim(name, letters+"_") != "" || name[0] >= '0' && name[0] <= '9' || strings.Contains(other, "\n") {
				return "", errNoRef
			}
			b.WriteString(cmp.Or(getenv(name), other))
			text = rest
		default:
			b.WriteByte('$')
			text = text[1:]
		}
		if b.Len() > maxFile {
			return "", errTooLong
		}
	}
	return b.String(), nil
}

// applyDeclared applies a declarative configuration file over the file, in the place of the
// other variables.
func (c *Config) applyDeclared(path string, getenv func(string) string, set *node, r *Report) {
	d, err := declare(path, getenv)
	if err != nil {
		r.Mistakes = append(r.Mistakes, fmt.Errorf("%s %s: %w; nothing is sent until it is right", ConfigFileEnv, path, err))
		c.Export.Target, c.Export.Targets = defaultTarget(), nil
		return
	}
	r.Ignored = append(r.Ignored, d.ignored...)
	endpoint := ofTraces + "ENDPOINT"
	if d.exports[ofTraces] && c.OTLP.serves(d.env[endpoint].value) {
		r.Ignored = append(r.Ignored, fmt.Errorf("%s: %w; it is ignored", d.where(endpoint), errItself))
		d.exports[ofTraces] = false
		maps.DeleteFunc(d.env, func(name string, _ said) bool { return strings.HasPrefix(name, ofTraces) })
	}
	if d.exports[ofTraces] { // nothing of another target goes to this one
		c.Export.Target = defaultTarget()
	}
	if d.level != "" {
		c.Log.Level = d.level
	}
	c.applyVariables(d.lookup, d.where, set, r)
}

// lookup is the environment that the file stands for: no other variable of OpenTelemetry counts.
func (d *declared) lookup(name string) string {
	if strings.HasPrefix(name, "OTEL_") {
		return d.env[name].value
	}
	return d.getenv(name)
}

// where names the key that a variable stands for.
func (d *declared) where(name string) string {
	at, ok := d.env[name]
	if !ok {
		return "environment " + name
	}
	return fmt.Sprintf("%s %s: line %d, column %d: %s", ConfigFileEnv, d.path, at.from.line, at.from.column, at.key)
}
