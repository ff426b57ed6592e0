package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func env(kv ...string) func(string) string {
	m := map[string]string{PathEnv: ""}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return func(k string) string { return m[k] }
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNoFileIsTheDefault(t *testing.T) {
	cfg, err := Parse(nil, "runc")
	if err != nil || !reflect.DeepEqual(cfg, Default()) {
		t.Errorf("got %+v, %v", cfg, err)
	}
	if broken := cfg.violations(); len(broken) > 0 {
		t.Errorf("the defaults are invalid: %v", broken)
	}
}

func TestRuntimeSectionsOverride(t *testing.T) {
	const text = `
[trace]
slow = "1s"
quiet = ["State"]
[export]
endpoint = "http://127.0.0.1:4318"
[resource]
zone = "a"
[agent.sockets]
clh = "/run/clh/{sandbox}"
[runtime.kata-qemu]
shim = "/opt/kata/bin/shim"
[runtime.kata-qemu.trace]
slow = "3s"
[runtime.kata-qemu.resource]
tier = "vm"
[runtime.kata-qemu.agent.sockets]
fc = "/run/fc/{sandbox}"
`
	kata, err := Parse([]byte(text), "kata-qemu")
	if err != nil {
		t.Fatal(err)
	}
	if kata.Shim != "/opt/kata/bin/shim" || kata.Runtime != "kata-qemu" || time.Duration(kata.Trace.Slow) != 3*time.Second {
		t.Errorf("kata: %+v", kata)
	}
	if len(kata.Trace.Quiet) != 1 || kata.Export.Endpoint == "" || kata.Resource["zone"] != "a" || kata.Resource["tier"] != "vm" || len(kata.Agent.Sockets) != 2 {
		t.Errorf("kata lost what is common: %+v", kata)
	}
	for _, other := range []string{"runc", "", "kata"} {
		cfg, err := Parse([]byte(text), other)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Shim != "" || cfg.Runtime != "" || time.Duration(cfg.Trace.Slow) != time.Second || len(cfg.Resource) != 1 || len(cfg.Agent.Sockets) != 1 {
			t.Errorf("%q got kata's: %+v", other, cfg)
		}
	}
}

// TestNothingLeaks: no key of one runtime's section changes another runtime.
func TestNothingLeaks(t *testing.T) {
	const section = `
[runtime.a]
shim = "/a"
[runtime.a.trace]
mode = "dynamic"
propagators = ["b3"]
quiet = []
[runtime.a.agent]
users = [7]
keep = ["*"]
[runtime.a.agent.sockets]
x = "/x/{sandbox}"
[runtime.a.agent.limits]
span_burst = 1
[runtime.a.export]
endpoint = "http://a:4318"
headers = { authorization = "a" }
[runtime.a.journal]
dir = "/a"
[runtime.a.resource]
a = "a"
`
	a, err := Parse([]byte(section), "a")
	if err != nil || a.Shim != "/a" || a.Agent.Limits.SpanBurst != 1 || a.Export.Headers["authorization"] != "a" {
		t.Fatalf("%+v, %v", a, err)
	}
	b, err := Parse([]byte(section+"[runtime.b]\nshim = '/b'\n"), "b")
	if want := Default(); err != nil || b.Shim != "/b" {
		t.Errorf("%+v, %v", b, err)
	} else if b.Shim, b.Runtime = "", ""; !reflect.DeepEqual(b, want) {
		t.Errorf("b has a's: %+v", b)
	}
}

// TestMistakes: each error says where and what, whichever runtime the configuration is
// read for, and affects only that key.
func TestMistakes(t *testing.T) {
	off := func(c *Config) { c.Trace.Mode = "off" }
	same := func(*Config) {}
	for _, tt := range []struct {
		text, want string
		costs      func(c *Config) // what it makes of the defaults, for runc
	}{
		{"[trace]\nmod = \"static\"\n", `line 2, column 1: unknown key "trace.mod"`, same},
		{"[tracing]\nmode = \"off\"\nx = 1\n", `line 1, column 2: unknown key "tracing"`, same},
		{"mode = \"off\"\n", `line 1, column 1: unknown key "mode"`, same},
		{"[trace]\nmode = 7\n", "line 2, column 8: trace.mode: 7 is not a string; nothing is traced", off},
		{"[trace]\nmode = \"sometimes\"\n", `line 2, column 8: trace.mode: "sometimes" is not one of static, dynamic, off; nothing is traced`, off},
		{"[trace]\nmode = off\n", "line 2, column 8: unexpected character", off},
		{"[trace\n", "line 1, column 7: expected ']'", same},
		{"[trace]\n\"mode\" = off\nslow = \"1s\"", "line 2, column 10: ", func(c *Config) { off(c); c.Trace.Slow = Duration(time.Second) }},
		{"[trace]\nslow = \"5\"\n", `line 2, column 8: trace.slow: "5" is not a duration: write a number with its unit`, same},
		{"[trace]\nslow = 5\n", `line 2, column 8: trace.slow: 5 is not a duration: write it with its unit, in quotes, such as "500ms"`, same},
		{"[relay]\nready_timeout = 2\n", "line 2, column 17: relay.ready_timeout: 2 is not a duration", same},
		{"[relay]\nready_timeout = 2.5\n", "line 2, column 17: relay.ready_timeout: 2.5 is not a duration", same},
		{"[relay]\nready_timeout = \"0s\"\n", "line 2, column 17: relay.ready_timeout: 0s is not a time", same},
		{"[relay]\nready_timeout = \"1h\"\n", "line 2, column 17: relay.ready_timeout: 1h0m0s is not a time", same},
		{"[export]\ntimeout = 10\n", "line 2, column 11: export.timeout: 10 is not a duration", same},
		{"[export]\ntimeout = \"0s\"\n", "line 2, column 11: export.timeout: 0 is no limit", same},
		{"[agent.limits]\nhold = 15\n", "line 2, column 8: agent.limits.hold: 15 is not a duration", same},
		{"[trace]\nsampler_arg = 2.0\n", "line 2, column 15: trace.sampler_arg: 2 is not a ratio", same},
		{"[trace]\nsampler_arg = nan\n", "line 2, column 15: trace.sampler_arg: NaN is not a ratio", same},
		{"[trace]\nsampler_arg = \"0.5\"\n", "line 2, column 15: trace.sampler_arg: this string is not a number", same},
		{"[trace]\npropagators = [\"b3\", \"xray\"]\n", `line 2, column 16: trace.propagators: "xray" is not one of tracecontext`, same},
		{"[trace]\npropagators = \"b3\"\n", `line 2, column 15: trace.propagators: this string is not a list`, same},
		{"[trace]\nquiet = [1]\n", `line 2, column 10: trace.quiet: 1 is not a string`, same},
		{"[journal]\nmax_bytes = \"lots\"\n", `line 2, column 13: journal.max_bytes: "lots" is not a size`, same},
		{"[journal]\nmax_bytes = 1.5\n", `line 2, column 13: journal.max_bytes: 1.5 is not a size`, same},
		{"[journal]\nmax_bytes = \"1MiB\"\n", "line 2, column 13: journal.max_bytes: 1048576 is too small", same},
		{"[journal]\nsegment_bytes = \"64MiB\"\n", "line 2, column 17: journal.segment_bytes: with it journal.max_bytes is wrong", same},
		{"[journal]\ndir = \"here\"\n", `line 2, column 7: journal.dir: "here" is not an absolute path`, same},
		{"[relay]\nstate_dir = \"/" + strings.Repeat("x", 80) + "\"\n", "line 2, column 13: relay.state_dir: ", same},
		{"[export]\nendpoint = \"127.0.0.1:4318\"\n", "line 2, column 12: export.endpoint: this is not a URL", same},
		{"[export]\nendpoint = \"http://h:4318\"\nheaders = { a = 1 }\n", "line 3, column 17: export.headers.a: 1 is not a string; nothing is sent", same},
		{"[export]\nendpoint = \"http://h:4318\"\nprotocol = \"http/json\"\n", "line 3, column 12: export.protocol: \"http/json\" is not one of http/protobuf, grpc, zipkin; nothing is sent", same},
		{"[export]\nheaders = { \"a b\" = \"x\" }\n", "line 2, column 21: export.headers.\"a b\": this is no header's name; nothing is sent", same},
		{"[export]\nheaders.a = \"x\\ny\"\n", "line 2, column 13: export.headers.a: there is a line break", same},
		{"[runtime.runc.relay]\nstate_dir = \"/x\"\n", "line 2, column 13: runtime.runc.relay.state_dir: relays and shimtrace find each other there", same},
		{"[export]\nendpoint = \"http://h:99999\"\n", "line 2, column 12: export.endpoint: the URL's port", same},
		{"[runtime.runc.trace]\nmode = \"never\"\n", "line 2, column 8: runtime.runc.trace.mode: \"never\"", off},
		{"[runtime.other.trace]\nmode = \"never\"\n", "line 2, column 8: runtime.other.trace.mode: \"never\"", same},
		{"[runtime.\"a b\".trace]\nmode = \"never\"\n", "line 2, column 8: runtime.\"a b\".trace.mode: \"never\"", same},
		{"[agent]\ninject = \"yes\"\n", `line 2, column 10: agent.inject: "yes" is not one of auto, on, off; it is off`, func(c *Config) { c.Agent.Inject = "off" }},
		{"[agent]\nkeep = [\"*\"]\n[runtime.runc.agent]\nkeep = \"code.*\"\n", "line 4, column 8: runtime.runc.agent.keep: this string is not a list; the default list", same},
		{"[agent]\nport = 0\n", "line 2, column 8: agent.port: 0 is no VSOCK port", same},
		{"[agent]\nport = -1\n", "line 2, column 8: agent.port: -1 is not a whole number from 0 to", same},
		{"[agent]\nsockets = { a = \"/a\" }\n", "line 2, column 17: agent.sockets.a: \"/a\" is not an absolute path with {sandbox}", same},
		{"[agent.limits]\nspan_burst = 0\n", "line 2, column 14: agent.limits.span_burst: 0 is no limit", same},
		{"[agent.limits]\nbyte_burst = \"1KiB\"\n", "line 2, column 14: agent.limits.byte_burst: 1024 is less than one frame", same},
		{"[jaeger]\nreceive = \"maybe\"\n", `line 2, column 11: jaeger.receive: "maybe" is not one of`, func(c *Config) { c.Jaeger.Receive = "off" }},
		{"[jaeger]\nlisten = \"0.0.0.0:276\"\n", `line 2, column 10: jaeger.listen: "0.0.0.0:276" is not an address of the loopback interface`, same},
		{"[jaeger]\nlisten = \"localhost:276\"\n", `jaeger.listen: "localhost:276" is not an address`, same},
		{"[jaeger]\nbody_bytes = 0\n", "line 2, column 14: jaeger.body_bytes: 0 is no limit", same},
		{"[jaeger]\nheld_bytes = \"1MiB\"\n", "line 2, column 14: jaeger.held_bytes: 1048576 is less", same},
		{"[runtime.runc.jaeger]\nlisten = \"127.0.0.1:1\"\n", "line 2, column 10: runtime.runc.jaeger.listen: the host has its endpoint once", same},
		{"[runtime.runc]\nshimm = \"x\"\n", `line 2, column 1: unknown key "runtime.runc.shimm"`, same},
		{"[runtime.runc]\nshim = 5\n", "line 2, column 8: runtime.runc.shim: 5 is not a string", same},
		{"[runtime]\nrunc = \"x\"\n", "line 2, column 1: runtime.runc: this string is not a section", same},
		{"runtime = 5\n", "line 1, column 11: runtime: 5 is not a section", same},
		{"trace = 5\n", "line 1, column 9: trace: 5 is not a section", same},
		{"[trace]\nlimits.x = 5\n", `line 2, column 1: unknown key "trace.limits"`, same},
		{"[trace]\n[trace]\n", "line 2, column 2: the section [trace] is there already, in line 1", same},
		{"[[trace]]\n", "line 1, column 1: [[trace]] is a list of sections", same},
		{"[trace]\nslow = \"500ms\"\nslow = \"1s\"\n", "line 3, column 1: trace.slow is there already, in line 2", same},
		{"[resource]\na = 1\n", "line 2, column 5: resource.a: 1 is not a string", same},
		{"[resource]\na = 2020-01-01\n", "line 2, column 5: resource.a: this is not a string", same},
		{"[trace]\nquiet = [\n  \"State\", \"Stats\", \"Pids\",\n  Connect,\n  \"Wait\",\n]\nslow = \"1s\"\n", "line 4, column 3: unexpected character", func(c *Config) { c.Trace.Slow = Duration(time.Second) }},
		{"[trace]\nslow = \"\"\"\n1s\n[relay]\nstate_dir = \"/x\"\n", "line 2, column 1: multiline basic string not terminated", func(c *Config) { c.Relay.StateDir = "/x" }},
		{"[trace]\nslow = \"1s\" # Z\xfcrich\n", "line 2, column 16: ", same},
		{"\xff\xfe[\x00", "line 1, column 1: ", same},
		// Two targets for one journal.
		{"[runtime.runc.export]\nendpoint = \"http://127.0.0.1:1\"\n", "line 1, column 2: runtime.runc.export: it differs from the export of the common [export], and both have the journal /var/lib/shimtrace/journal", func(c *Config) { off(c); c.Export.Endpoint = "http://127.0.0.1:1" }},
		{"[runtime.other.export]\nendpoint = \"http://127.0.0.1:1\"\n[runtime.other.journal]\ndir = \"/var/lib/../lib//shimtrace/journal/\"\n", "line 1, column 2: runtime.other.export: it differs", same},
		{"[runtime.a.export]\nendpoint = \"http://a:1\"\n[runtime.a.journal]\ndir = \"/x\"\n[runtime.runc.export]\nendpoint = \"http://b:1\"\n[runtime.runc.journal]\ndir = \"/x/\"\n", "line 5, column 2: runtime.runc.export: it differs from the export of [runtime.a], and both have the journal /x", func(c *Config) {
			off(c)
			c.Export.Endpoint, c.Journal.Dir = "http://b:1", "/x"
		}},
	} {
		for _, inner := range []string{"", "runc", "other"} {
			cfg, r := Load(inner, env(PathEnv, write(t, tt.text)))
			if err := r.Err(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q: error %v, want %q in it", tt.text, err, tt.want)
			}
			if broken := cfg.violations(); len(broken) > 0 {
				t.Errorf("%q leaves an invalid configuration: %v", tt.text, broken)
			}
			if r.Unreadable {
				t.Errorf("%q: unreadable", tt.text)
			}
			if inner == "runc" {
				want := Default()
				tt.costs(&want)
				if cfg.Runtime = ""; !reflect.DeepEqual(cfg, want) {
					t.Errorf("%q costs more or less than it should:\n%+v\nwant\n%+v", tt.text, cfg, want)
				}
			}
		}
	}
}

// TestEveryMistakeHasAPlace, also one in a value's meaning.
func TestEveryMistakeHasAPlace(t *testing.T) {
	_, err := Parse([]byte("[runtime.x]\n\n  [runtime.x.agent.limits]\n  hold = 5\n[export]\nprotocol='x'\n"), "")
	var list []Mistake
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var m Mistake
		if errors.As(e, &m) {
			list = append(list, m)
		}
	}
	if len(list) != 2 || list[0].Line != 4 || list[0].Column != 10 || list[1].Line != 6 || list[1].Column != 10 {
		t.Errorf("%+v", list)
	}
}

// TestTheInnerShimIsFound whatever else is wrong with the file.
func TestTheInnerShimIsFound(t *testing.T) {
	const section = "\n[runtime.kata-qemu]\nshim = \"/opt/kata/bin/shim\"\n"
	many := strings.Repeat("x = \n", 5000)
	for name, text := range map[string]string{
		"before it":          "[trace\nmode = \n\xff\x00" + section,
		"after it":           section + "[trace\nmode = = 3\n\"\"\"",
		"on both sides":      "]]]\nslow = 2s\n" + section + "trace = {",
		"an open string":     "[trace]\nslow = \"\"\"\n" + section,
		"an open list":       "[trace]\nquiet = [ \"a\",\n" + section,
		"an open table":      "[resource]\na = 'b'\n[export]\nheaders = { a = 'b', \n" + section,
		"an unknown section": "[nonsense]\nshim = \"/wrong\"\n" + section,
		"a bad value":        "[trace]\nmode = \"x\"\nsampler_arg = 5\n" + section + "[runtime.kata-qemu.trace]\nslow = 3\n",
		"the same key twice": section + "shim = \"/second\"\n",
		"the section twice":  section + "[runtime.kata-qemu]\ntrace.mode = \"off\"\n",
		"runtime is a value": "runtime = 5\n" + section,
		"it is a value":      "runtime.kata-qemu = 'x'\n" + section,
		"a list of tables":   "[[runtime.kata-qemu]]\nshim = \"/opt/kata/bin/shim\"\n",
		"a broken header":    "[runtime.kata-qemu\nshim = \"/opt/kata/bin/shim\"\n",
		"another header":     "[ runtime . 'kata-qemu' ] ]\nshim = '/opt/kata/bin/shim'\n",
		"an inline table":    "runtime = { kata-qemu = { shim = \"/opt/kata/bin/shim\", x = 1 } }\n",
		"dotted":             "runtime.kata-qemu.shim = \"/opt/kata/bin/shim\"\nx\n",
		"many mistakes":      many + section + many,
		"DOS lines, a mark":  "\xef\xbb\xbf" + strings.ReplaceAll("[trace]\nx = 1\n"+section, "\n", "\r\n"),
		"other runtimes":     "[runtime.a]\nshim = 5\n[runtime.b.trace]\nmode = 9\n[runtime.kata]\nshim = '/no'\n" + section,
		"too long a file":    section + strings.Repeat("# long\n", maxFile/7) + "[trace]\n",
		"a Latin-1 comment":  "# f\xfcr Z\xfcrich\n[trace]\nmode = 3\n" + section,
		"two targets":        "[runtime.kata-qemu.export]\nendpoint='http://x:1'\n" + section,
	} {
		t.Run(name, func(t *testing.T) {
			cfg, r := Load("kata-qemu", env(PathEnv, write(t, text),
				"OTEL_TRACES_SAMPLER", "jaeger_remote", "OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_ENDPOINT", "collector"))
			if cfg.Shim != "/opt/kata/bin/shim" || r.Unreadable {
				t.Errorf("shim %q; %v", cfg.Shim, r.Err())
			}
			if name != "an inline table" && len(r.Mistakes) == 0 {
				t.Error("no mistake is named")
			}
			if len(r.Mistakes) > maxMistakes+1 || len(r.Ignored) != 3 {
				t.Errorf("%d mistakes, %v", len(r.Mistakes), r.Ignored)
			}
		})
	}
	cfg, r := Load("kata-qemu", env(PathEnv, write(t, "[runtime.kata-qemu]\nshim = /opt/kata/bin/shim\n[trace]\nslow = '1s'\n")))
	if cfg.Shim != "" || cfg.Runtime != "kata-qemu" || cfg.Trace.Slow != Duration(time.Second) || !strings.Contains(r.Err().Error(), "line 2, column 8") {
		t.Errorf("%+v, %v", cfg, r)
	}
}

func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none"), dir, "/dev/zero", filepath.Join(write(t, ""), "below")} {
		cfg, r := Load("runc", env(PathEnv, path))
		want := Default()
		want.Trace.Mode = "off"
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), "configuration "+path+": ") || !r.Unreadable || !reflect.DeepEqual(cfg, want) {
			t.Errorf("%s: %+v, %v", path, cfg, r)
		}
	}
	if cfg, r := Load("runc", env(PathEnv, " "+write(t, "[log]\nlevel = 'debug'")+"\n")); r.Err() != nil || cfg.Log.Level != "debug" {
		t.Errorf("%+v, %v", cfg, r)
	}
}

// TestSecretsAreNotSaid: messages contain no URLs and header values.
func TestSecretsAreNotSaid(t *testing.T) {
	const secret = "hunter2"
	for _, value := range []string{
		"http://user:" + secret + "@host:4318", "http://" + secret + "@host:4318", "https://host/x?key=" + secret,
		"http://host/#" + secret, "host:4317/" + secret, secret + ":x", "ftp://" + secret, "http://host:" + secret, "http://%zz" + secret,
	} {
		for _, protocol := range []string{"grpc", "http/protobuf"} {
			cfg, r := Load("", env(PathEnv, write(t, "[export]\nendpoint = \""+value+"\"\nprotocol=\""+protocol+"\"\n"), "OTEL_EXPORTER_OTLP_ENDPOINT", value, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value))
			if len(r.Mistakes) != 1 || len(r.Ignored) != 2 || cfg.Export.Endpoint != "" {
				t.Errorf("%s: %+v, endpoint %q", value, r, cfg.Export.Endpoint)
			}
			if err := errors.Join(append(r.Ignored, r.Err())...).Error(); strings.Contains(err, secret) {
				t.Errorf("%s is in %q", value, err)
			}
		}
	}
	for _, text := range []string{
		"headers = \"" + secret + "\"", "headers = { authorization = [\"" + secret + "\"] }", "headers = { authorization = \"" + secret,
		"endpoint = [\"" + secret + "\"]", "endpoint = \"http://" + secret, "headers = { a = " + secret + " }",
	} {
		if _, err := Parse([]byte("[export]\n"+text+"\n"), ""); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", text, err)
		}
	}
	_, r := Load("", env("OTEL_EXPORTER_OTLP_HEADERS", secret+",a=%zz"+secret, "OTEL_RESOURCE_ATTRIBUTES", secret))
	if err := errors.Join(r.Ignored...); len(r.Ignored) != 2 || strings.Contains(err.Error(), secret) {
		t.Errorf("%v", err)
	}
}

func TestARuntimeWithItsOwnJournalExportsElsewhere(t *testing.T) {
	cfg, err := Parse([]byte("[runtime.runc.export]\nendpoint = \"http://127.0.0.1:1\"\n[runtime.runc.journal]\ndir = \"/var/lib/other\"\n"), "runc")
	if err != nil || cfg.Export.Endpoint != "http://127.0.0.1:1" {
		t.Errorf("%+v, %v", cfg, err)
	}
}
