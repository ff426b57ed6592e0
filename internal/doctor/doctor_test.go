package doctor

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestWell: nothing is found where nothing is wrong.
func TestWell(t *testing.T) {
	for _, f := range newPlace(t).examine() {
		if f.Level != OK {
			t.Errorf("found %+v", f)
		}
	}
}

// TestBroken: each broken set-up has its own finding, and no other error.
func TestBroken(t *testing.T) {
	const kata = "opt/kata/share/defaults/kata-containers/"
	for _, tt := range []struct {
		name    string
		do      func(*place)
		check   string
		level   Level
		finding string
	}{
		{"no containerd", func(p *place) { p.remove("usr/bin/containerd"); p.remove("etc/containerd") },
			"containerd", Error, "there is no containerd"},
		{"containerd's file is no TOML", func(p *place) { p.put("etc/containerd/config.toml", "version = 3\n[plugins\n", 0o644) },
			"containerd", Error, "line 2, column"},
		{"no version", func(p *place) { p.put("etc/containerd/config.toml", "imports = []\n", 0o644) },
			"containerd", Error, "version = 1"},
		{"a section of another version", func(p *place) {
			p.put("etc/containerd/config.toml", traced+"[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata-traced]\nruntime_type = \"io.containerd.kata-traced.v2\"\n", 0o644)
		}, "containerd", Error, "handler kata-traced is below plugin"},
		{"no traced handler", func(p *place) { p.put("etc/containerd/config.toml", "version = 3\n", 0o644) },
			"handlers", Warning, "no handler of CRI is traced"},
		{"a handler's path leads nowhere", func(p *place) {
			p.put("etc/containerd/config.toml", strings.ReplaceAll(traced, "/usr/local/bin", "/opt/gone"), 0o644)
		}, "handlers", Error, "needs /opt/gone/containerd-shim-runc-traced-v2"},
		{"a handler's type has no program", func(p *place) {
			p.put("etc/containerd/config.toml", traced+"[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\nruntime_type = 'io.containerd.kata-traced.v2'\n", 0o644)
		}, "handlers", Error, "handler x needs containerd-shim-kata-traced-v2"},
		{"runc without its options", func(p *place) {
			p.put("etc/containerd/config.toml", strings.Replace(traced, "io.containerd.runc.v2", "io.containerd.runc-traced.v2", 1), 0o644)
		}, "handlers", Error, "no options of runc"},
		{"a link that leads nowhere", func(p *place) { p.link("usr/local/bin/containerd-shim-kata-traced-v2", "gone") },
			"links", Error, "leads nowhere"},
		{"another program under a link's name", func(p *place) { p.put("usr/local/bin/containerd-shim-kata-traced-v2", "#!/bin/sh\n", 0o755) },
			"links", Error, "is not its shim"},
		{"the program of relays is elsewhere on PATH", func(p *place) {
			p.remove("usr/local/bin/shimtrace-relay")
			p.program("usr/bin/shimtrace-relay")
		}, "links", Error, "shimtrace-relay is not beside its shim"},
		{"two programs of one name", func(p *place) {
			p.program("usr/bin/other")
			p.link("usr/bin/containerd-shim-runc-traced-v2", "other")
		}, "links", Warning, "comes first on containerd's PATH"},
		{"the inner shim that the configuration names is not there", func(p *place) {
			p.put("etc/shimtrace/config.toml", "[runtime.runc]\nshim = \"/opt/gone/containerd-shim-runc-v2\"\n", 0o600)
		}, "inner shims", Error, "/opt/gone/containerd-shim-runc-v2, is not there"},
		{"a mistake in the configuration", func(p *place) { p.put("etc/shimtrace/config.toml", "[trace]\nmode = \"sometimes\"\n", 0o600) },
			"configuration", Error, "line 2, column"},
		{"a mistake in a runtime's section", func(p *place) { p.put("etc/shimtrace/config.toml", "[runtime.runc.trace]\nslow = \"soon\"\n", 0o600) },
			"configuration", Error, "line 2, column"},
		{"others may write the configuration", func(p *place) { p.put("etc/shimtrace/config.toml", "[trace]\n", 0o666) },
			"configuration", Error, "others may change it"},
		{"everybody may read the headers", func(p *place) {
			p.put("etc/shimtrace/config.toml", "[export]\nheaders = { authorization = \"x\" }\n", 0o644)
		}, "configuration", Warning, "may read the headers"},
		{"a variable that is not understood", func(p *place) { p.env["OTEL_TRACES_SAMPLER"] = "maybe" },
			"configuration", Warning, "OTEL_TRACES_SAMPLER"},
		{"tracing is off", func(p *place) { p.put("etc/shimtrace/config.toml", "[trace]\nmode = \"off\"\n", 0o600) },
			"configuration", Warning, "tracing is off"},
		{"the journal is a file", func(p *place) { p.put("var/lib/shimtrace/journal", "", 0o600) },
			"journal", Error, "not a directory"},
		{"a journal larger than its disk", func(p *place) {
			p.put("etc/shimtrace/config.toml", "[journal]\ndir = \"/j\"\nmax_bytes = \"1000000GiB\"\n", 0o600)
			p.put("j/left", "", 0o600)
		}, "journal", Warning, "the journal may still grow"},
		{"nobody at the collector's address", func(p *place) {
			p.put("etc/shimtrace/config.toml", "[export]\nendpoint = \"http://127.0.0.1:1\"\n", 0o600)
		},
			"collector", Error, "a test span was not taken"},
		{"Kata traces, and is not wrapped", func(p *place) {
			p.put(kata+"configuration-qemu.toml", "[hypervisor.qemu]\n[agent.kata]\nenable_tracing = true\n[runtime]\n", 0o644)
		}, "kata", Warning, "no runtime of it is wrapped"},
		{"Kata traces nothing", func(p *place) {
			p.put(kata+"configuration-clh.toml", "[hypervisor.clh]\n[agent.kata]\n[runtime]\n", 0o644)
		},
			"kata", Note, "Kata traces nothing of itself"},
		{"Kata's spans go elsewhere", func(p *place) {
			p.link("usr/local/bin/containerd-shim-kata-traced-v2", "containerd-shim-traced-v2")
			p.put(kata+"configuration-qemu.toml", "[hypervisor.qemu]\n[agent.kata]\n[runtime]\nenable_tracing = true\n", 0o644)
		}, "kata", Warning, "posts its spans to localhost:14268"},
		{"a drop-in that Kata cannot read", func(p *place) {
			p.put(kata+"configuration-qemu.toml", "[hypervisor.qemu]\n[agent.kata]\n[runtime]\n", 0o644)
			p.put(kata+"config.d/90-mine.toml", "[hypervisor\n", 0o644)
		}, "kata", Error, "Kata cannot read it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			tt.do(p)
			wantOne(t, p.examine(), tt.check, tt.level, tt.finding)
		})
	}
}

// TestReport: a person gets lines that fit, a script an object a line.
func TestReport(t *testing.T) {
	f := Finding{Check: "journal", Level: Error, What: strings.Repeat("word ", 40), Where: "/x", Do: "this"}
	var out strings.Builder
	r := Report{Out: &out, Width: 60}
	if err := r.Tell(f); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(out.String(), "\n") {
		if len(line) > 60 {
			t.Errorf("%d cells: %s", len(line), line)
		}
	}
	if failed, summary := r.Failed(); !failed || summary != "1 error, 0 warnings, 0 notes" {
		t.Error(failed, summary)
	}
	out.Reset()
	if err := (&Report{Out: &out, JSON: true}).Tell(f); err != nil {
		t.Fatal(err)
	}
	var got Finding
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got != f {
		t.Errorf("%v: %s", err, out.String())
	}
}
