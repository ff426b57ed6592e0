package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Target is where spans are sent, and as whom.
type Target struct {
	// Name is empty for the target of [export] itself.
	Name string `toml:"-"`
	// A backend, whose address and protocol are then the defaults of `endpoint` and
	// `protocol`: see [backends.md](backends.md).
	Preset string `toml:"preset"`
	// The backend's base URL, without user, password and query (put credentials into
	// `headers`), or for gRPC a host with a port; none: nothing is sent.
	// `OTEL_TRACES_EXPORTER=none` has the same effect.
	Endpoint string `toml:"endpoint" type:"URL"`
	// `"http/protobuf"` (port 4318, as a rule; `/v1/traces` is appended), `"grpc"` (port 4317)
	// or `"zipkin"` (Zipkin's API in JSON, port 9411; `/api/v2/spans` is appended).
	Protocol string `toml:"protocol"`
	// HTTP headers, or metadata of gRPC, that are sent with every request.
	Headers map[string]string `toml:"headers"`
	// Headers whose values are in files, by absolute path; they are read for every request, so
	// that a secret may change.
	HeaderFiles map[string]string `toml:"header_files"`
	// The authorities that the backend's certificate may be from, in PEM; none: those that the
	// host trusts.
	CA string `toml:"ca" type:"path"`
	// A certificate of shimtrace, in PEM, for a backend that asks for one (mTLS); read for
	// every connection.
	Cert string `toml:"cert" type:"path"`
	// The key of `cert`, in PEM.
	Key string `toml:"key" type:"path"`
	// An endpoint that is a host with a port is spoken to without TLS. With a URL, `http://`
	// says so.
	Insecure bool `toml:"insecure"`
	// Bounds one attempt; attempts are repeated until the collector takes the spans.
	Timeout Duration `toml:"timeout"`
	// `"gzip"` or `"none"`; a collector that refuses gzip gets uncompressed uploads.
	Compression string `toml:"compression"`

	// exact: the endpoint is the whole URL that the signal is posted to.
	exact bool `toml:"-"`
	// alone: variables have made the target for metrics alone.
	alone bool `toml:"-"`
}

const (
	// maxTargets bounds the targets with a name: each reads the journal by itself.
	maxTargets = 8
	// maxTargetName bounds a name in bytes, since files are named after it.
	maxTargetName = 32
	// defaultName is what the target of [export] itself is called.
	defaultName = "default"
)

// whose are the words with which the reasons of losses begin if the spans were not
// shimtrace's own. A target's name precedes a reason in the same way.
var whose = []string{"agent", "runtime", "otlp"}

func defaultTarget() Target {
	return Target{Protocol: "http/protobuf", Timeout: Duration(10 * time.Second), Compression: "gzip"}
}

// String returns the target's name.
func (t Target) String() string { return cmp.Or(t.Name, defaultName) }

// variableOf maps a target's keys to the variables, without their prefixes, that say the
// same.
var variableOf = map[string]string{
	"endpoint": "ENDPOINT", "protocol": "PROTOCOL", "headers": "HEADERS", "insecure": "INSECURE",
	"ca": "CERTIFICATE", "cert": "CLIENT_CERTIFICATE", "key": "CLIENT_KEY",
}

// Keys says where the target's keys are set: what to change, for messages.
func (t Target) Keys(keys ...string) string {
	prefix := ofAll
	if t.alone {
		prefix = ofMetrics
	}
	var names []string
	for _, key := range keys {
		if name := variableOf[key]; name != "" {
			names = append(names, prefix+name)
		}
	}
	written, known := strings.Join(keys, " and ")+" of "+t.Section(), strings.Join(names, " and ")
	switch {
	case t.alone:
		return known
	case t.Name == "" && known != "":
		return written + " (" + known + ")"
	}
	return written
}

// Section returns the section of the file that has the target, for messages.
func (t Target) Section() string {
	if t.Name == "" {
		return "[export]"
	}
	return "[export.target." + t.Name + "]"
}

// All returns the targets that spans are sent to, that of [export] itself first, and then
// by name.
func (e Export) All() (all []Target) {
	if e.Endpoint != "" {
		all = append(all, e.Target)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Targets)) {
		all = append(all, e.Targets[name])
	}
	return all
}

// Ships reports whether there is any target.
func (e Export) Ships() bool { return len(e.All()) > 0 }

// decodeTarget returns the target that a table describes.
func decodeTarget(name string, n *node) Target {
	t := defaultTarget()
	t.Name = name
	t.usePreset(n)
	fill(reflect.ValueOf(&t).Elem(), n)
	return t
}

// checkTargets checks the targets with a name.
func (e Export) checkTargets(r *rules, o OTLP) {
	names := slices.Sorted(maps.Keys(e.Targets))
	for i, name := range names {
		key := []string{"export", "target", name}
		t := e.Targets[name]
		var err error
		switch {
		case i >= maxTargets:
			err = fmt.Errorf("there are more than %d targets", maxTargets)
		case name == "" || len(name) > maxTargetName || strings.Trim(name, bareKey) != "":
			err = fmt.Errorf("a target's name has letters, digits, _ and -, and at most %d of them", maxTargetName)
		case name == defaultName:
			err = fmt.Errorf("%s is the name of the target of [export] itself", defaultName)
		case slices.Contains(whose, name):
			err = fmt.Errorf("in the counts of lost spans, %q says whose they are: choose another name", name)
		case t.Endpoint == "" && t.Preset == "":
			err = errors.New("it has no address: set endpoint, or preset")
		}
		if err != nil {
			*r = append(*r, violation{[][]string{key}, err})
			continue
		}
		t.check(r, o, key...)
	}
}

// check checks a target whose keys are below a section.
func (t Target) check(r *rules, o OTLP, section ...string) {
	at := func(path ...string) []string { return append(slices.Clone(section), path...) }
	want := func(err error, keys ...string) {
		if err == nil {
			return
		}
		v := violation{err: err}
		for _, key := range keys {
			v.keys = append(v.keys, at(key))
		}
		*r = append(*r, v)
	}
	want(t.checkPreset(), "preset")
	want(oneOf(t.Protocol, protocols...), "protocol")
	want(oneOf(t.Compression, "gzip", "none"), "compression")
	want(checkEndpoint(t.Endpoint), "endpoint")
	if t.Endpoint != "" && o.serves(t.Endpoint) {
		want(errItself, "endpoint", "preset")
	}
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		if err := CheckHeader(name, t.Headers[name]); err != nil {
			*r = append(*r, violation{[][]string{at("headers", name)}, err})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.HeaderFiles)) {
		if err := cmp.Or(CheckHeader(name, ""), absolute(t.HeaderFiles[name])); err != nil {
			*r = append(*r, violation{[][]string{at("header_files", name)}, err})
		}
	}
	for key, path := range map[string]string{"ca": t.CA, "cert": t.Cert, "key": t.Key} {
		if path != "" {
			want(absolute(path), key)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		want(errors.New("a certificate needs its key: set both cert and key"), "cert", "key")
	}
	want(positive(int64(t.Timeout)), "timeout")
}
