package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestTargets: each target has its own values, none of [export]'s; a mistake costs the
// target that it is in, and no other.
func TestTargets(t *testing.T) {
	const one = "[export]\nendpoint = \"http://one:4318\"\nheaders = { a = \"secret\" }\ntimeout = \"1s\"\n"
	for name, tt := range map[string]struct{ file, urls, mistake string }{
		"beside":         {one + "[export.target.two]\npreset = \"zipkin\"\n", "default http://one:4318/v1/traces, two http://127.0.0.1:9411/api/v2/spans", ""},
		"alone":          {"[export.target.two]\nendpoint = \"collector:4317\"\nprotocol = \"grpc\"\ninsecure = true\n", "two http://collector:4317/v1/traces", ""},
		"inline":         {"[export]\ntarget.b.preset = \"jaeger\"\ntarget.a.endpoint = \"http://a:1\"\n", "a http://a:1/v1/traces, b http://127.0.0.1:4318/v1/traces", ""},
		"no address":     {one + "[export.target.two]\ntimeout = \"2s\"\n", "default http://one:4318/v1/traces", "line 5, column 2: export.target.two: it has no address: set endpoint, or preset; nothing is sent there"},
		"bad address":    {one + "[export.target.two]\nendpoint = \"two\"\n[export.target.ok]\npreset = \"jaeger\"\n", "default http://one:4318/v1/traces, ok http://127.0.0.1:4318/v1/traces", "export.target.two.endpoint: this is not a URL"},
		"bad header":     {one + "[export.target.two]\npreset = \"jaeger\"\nheaders = { \"a b\" = \"x\" }\n", "default http://one:4318/v1/traces", "no header's name; nothing is sent there until it is right"},
		"half a cert":    {one + "[export.target.two]\npreset = \"jaeger\"\ncert = \"/c\"\n", "default http://one:4318/v1/traces", "a certificate needs its key"},
		"type":           {one + "[export.target.two]\npreset = \"jaeger\"\ninsecure = 1\n", "default http://one:4318/v1/traces", "1 is not true or false; nothing is sent there"},
		"bad default":    {"[export]\nendpoint = 7\n[export.target.two]\npreset = \"jaeger\"\n", "two http://127.0.0.1:4318/v1/traces", "7 is not a string"},
		"no section":     {one + "target.two = 1\n", "default http://one:4318/v1/traces", "1 is not a section; nothing is sent there"},
		"name":           {one + "[export.target.\"a/b\"]\npreset = \"jaeger\"\n", "default http://one:4318/v1/traces", "a target's name has letters"},
		"default's name": {one + "[export.target.default]\npreset = \"jaeger\"\n", "default http://one:4318/v1/traces", "the name of the target of [export] itself"},
		"reserved":       {one + "[export.target.agent]\npreset = \"jaeger\"\n", "default http://one:4318/v1/traces", "in the counts of lost spans, \"agent\" says whose they are"},
		"unknown key":    {one + "[export.target.two]\npreset = \"jaeger\"\nonly = \"slow\"\n", "default http://one:4318/v1/traces, two http://127.0.0.1:4318/v1/traces", `unknown key "export.target.two.only"`},
		"itself":         {"[otlp]\nlisten = [\"127.0.0.1:4318\"]\n[export.target.two]\npreset = \"jaeger\"\n", "", "own OTLP endpoint"},
	} {
		cfg, err := Parse([]byte(tt.file), "")
		if (err == nil) != (tt.mistake == "") || err != nil && (!strings.Contains(err.Error(), tt.mistake) || strings.Count(err.Error(), "\n") > 0) {
			t.Errorf("%s: %v, want %q", name, err, tt.mistake)
		}
		var urls []string
		for _, target := range cfg.Export.All() {
			urls = append(urls, target.String()+" "+target.URL())
			if target.Name != "" && (len(target.Headers) > 0 || target.Timeout != defaultTarget().Timeout) {
				t.Errorf("%s: %s has values of [export]: %+v", name, target, target)
			}
		}
		if got := strings.Join(urls, ", "); got != tt.urls {
			t.Errorf("%s: %s, want %s", name, got, tt.urls)
		}
	}
}

// TestReservedNames: no target has a name that would make a reason of losses mean two things.
func TestReservedNames(t *testing.T) {
	var l losses.Ledger
	for w := range losses.Whose(len(l)) {
		l.Of(w).Add(losses.QueueFull, 1)
	}
	counts := make(map[string]int)
	l.Take(counts)
	var words []string
	for reason := range counts {
		if word, _, found := strings.Cut(reason, ": "); found {
			words = append(words, word)
		}
	}
	slices.Sort(words)
	if want := slices.Sorted(slices.Values(whose)); !slices.Equal(words, want) {
		t.Errorf("reasons begin with %q, and reserved are %q", words, want)
	}
}

// TestManyTargets: their number is bounded.
func TestManyTargets(t *testing.T) {
	file := ""
	for _, name := range strings.Split("abcdefghij", "") {
		file += "[export.target." + name + "]\npreset = \"jaeger\"\n"
	}
	cfg, err := Parse([]byte(file), "")
	if len(cfg.Export.All()) != maxTargets || err == nil || strings.Count(err.Error(), "more than 8 targets") != 2 {
		t.Errorf("%d targets: %v", len(cfg.Export.All()), err)
	}
}

// TestTargetsOfRuntimes: a runtime's section changes a target key by key; what is wrong in
// it keeps the common target from being used for that runtime.
func TestTargetsOfRuntimes(t *testing.T) {
	const common = "[export.target.two]\nendpoint = \"http://two:1\"\nheaders = { a = \"1\" }\n[runtime.kata.journal]\ndir = \"/j\"\n[runtime.kata.export.target.two]\n"
	cfg, err := Parse([]byte(common+"timeout = \"3s\"\n"), "kata")
	two := cfg.Export.Targets["two"]
	if err != nil || two.URL() != "http://two:1/v1/traces" || two.Headers["a"] != "1" || two.Timeout == defaultTarget().Timeout {
		t.Errorf("%+v, %v", two, err)
	}
	cfg, err = Parse([]byte(common+"endpoint = \"two\"\n"), "kata")
	if err == nil || cfg.Export.Ships() {
		t.Errorf("%+v, %v", cfg.Export, err)
	}
}

// TestEnvironmentIsTheDefaultTarget: variables change the target of [export] alone, except
// that "none" means no target.
func TestEnvironmentIsTheDefaultTarget(t *testing.T) {
	path := write(t, "[export.target.two]\npreset = \"zipkin\"\n")
	cfg, _ := Load("", env(PathEnv, path, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://one:1", "OTEL_EXPORTER_OTLP_HEADERS", "a=b"))
	if all := cfg.Export.All(); len(all) != 2 || all[0].URL() != "http://one:1/v1/traces" || len(all[1].Headers) != 0 || all[1].Protocol != "zipkin" {
		t.Errorf("%+v", all)
	}
	if cfg, _ := Load("", env(PathEnv, path, "OTEL_TRACES_EXPORTER", "none")); cfg.Export.Ships() {
		t.Errorf("%+v", cfg.Export)
	}
}
