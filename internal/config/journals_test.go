package config

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestJournals: a host's journals are the common one and those of runtimes with their
// own, each once, whatever else is wrong with the file.
func TestJournals(t *testing.T) {
	path := write(t, `
[export]
endpoint = "http://127.0.0.1:4318"
[runtime.runc.trace]
slow = "1s"
[runtime.kata.journal]
dir = "/var/lib/kata-journal/"
[runtime.kata.export]
endpoint = "http://127.0.0.1:4319"
[runtime.clh.journal]
dir = "/var/lib/kata-journal"
[runtime.clh.export]
endpoint = "http://127.0.0.1:4319"
[runtime.fc]
journal.dir = "relative"
`)
	all, report := Journals(env(PathEnv, path))
	var got []string
	for _, c := range all {
		got = append(got, c.Runtime+" "+c.Journal.Dir+" "+c.Export.Endpoint)
	}
	want := " /var/lib/shimtrace/journal http://127.0.0.1:4318, kata /var/lib/kata-journal http://127.0.0.1:4319"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
	if err := report.Err(); err == nil || !strings.Contains(err.Error(), "runtime.fc.journal.dir") {
		t.Errorf("the mistake is not told: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if all, report := Journals(env(PathEnv, path)); len(all) != 1 || !report.Unreadable || all[0].Trace.Mode != "off" {
		t.Errorf("a file that is not there: %d journals, %+v", len(all), report)
	}
}

// TestJournalsOfStrangeFiles: the runtimes' journals are found in every file that Load
// reads.
func TestJournalsOfStrangeFiles(t *testing.T) {
	const text = "[runtime.kata.journal]\ndir = '/kata'\n"
	for name, text := range map[string]string{
		"a byte order mark": "\xef\xbb\xbf" + text,
		"too long":          text + strings.Repeat("# a comment\n", maxFile/12),
	} {
		all, _ := Journals(env(PathEnv, write(t, text)))
		if len(all) != 2 || all[1].Journal.Dir != "/kata" {
			t.Errorf("%s: %d journals", name, len(all))
		}
	}
}

func TestSetEndpoint(t *testing.T) {
	e := Default().Export
	for base, what := range map[string]string{
		"": "not a URL", "ftp://host": "not a URL", "http://me:secret@host": "password", "http://host?a=b": "query", "http://host:0": "port",
	} {
		if err := e.SetEndpoint(base); err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "secret") || e.Endpoint != "" {
			t.Errorf("%q: %v, %q", base, err, e.Endpoint)
		}
	}
	if err := e.SetEndpoint("https://collector:4318/otlp"); err != nil || e.URL() != "https://collector:4318/otlp/v1/traces" {
		t.Errorf("%v, %s", err, e.URL())
	}
}

// TestStrangePlaces: a misplaced table or value affects only what it is about, and is
// reported once.
func TestStrangePlaces(t *testing.T) {
	for text, want := range map[string]string{
		"journal = 1\n[journal]\ndir = '/j'\n":          "journal is a section: it cannot have a value",
		"[trace]\nslow = { a = 1 }\n":                   "this table is not a duration",
		"runtime = 1\n":                                 "1 is not a section",
		"[runtime]\nrunc = 'x'\n":                       "this string is not a section",
		"[runtime.kata]\nrelay.state_dir = '/other'\n":  "set it in the common [relay]",
		"[runtime.kata]\njaeger.held_bytes = '64MiB'\n": "set listen, body_bytes and held_bytes in the common [jaeger]",
		"[runtime.kata]\njaeger.body_bytes = 1\n":       "set listen, body_bytes and held_bytes in the common [jaeger]",
		"[resource]\na = 1\n":                           "1 is not a string",
		"[resource]\na = [1]\n":                         "this list is not a string",
		"[export]\nheaders = { a = 'b', c.d = 'e' }\n":  "this table is not a string",
		"[[agent]]\nreceive = 'on'\n":                   "is a list of sections, and there are none",
		"[agent]\nport = -1\n":                          "-1 is not a whole number from 0",
		"[agent]\nlimits.connections = 1.5\n":           "1.5 is not a whole number",
		"[trace]\nsampler_arg = true\n":                 "true is not a number",
		"[journal]\nmax_bytes = -1\n":                   "-1 is not a size",
		"[trace]\nslow = 1979-05-27\n":                  "this is not a duration",
		"[trace]\nquiet = [1]\n":                        "1 is not a string",
	} {
		cfg, err := Parse([]byte(text), "kata")
		if err == nil || strings.Count(err.Error(), want) != 1 {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if broken := cfg.violations(); len(broken) > 0 {
			t.Errorf("%q: what is left is wrong: %v", text, broken)
		}
	}
}

// TestALongFile is read up to the bound.
func TestALongFile(t *testing.T) {
	path := write(t, "[trace]\nslow = '7s'\n"+strings.Repeat("# a comment\n", maxFile/12))
	cfg, report := Load("", env(PathEnv, path))
	if err := report.Err(); err == nil || !strings.Contains(err.Error(), "is not read") || time.Duration(cfg.Trace.Slow) != 7*time.Second {
		t.Errorf("%v, %v", err, cfg.Trace.Slow)
	}
	many := write(t, strings.Repeat("x = 1\n", 2*maxMistakes))
	if _, report := Load("", env(PathEnv, many)); len(report.Mistakes) != maxMistakes+1 || !strings.Contains(report.Err().Error(), "more mistakes") {
		t.Errorf("%d mistakes are said: %v", len(report.Mistakes), report.Err())
	}
}
