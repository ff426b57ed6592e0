package backends

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// pipe is a pipeline of a Collector, from a port of OTLP to a file of each signal.
type pipe struct {
	name, protocol string // http or grpc
	port           int
	settings       string // of the receiver
}

func (p pipe) id() string { return p.name + p.protocol }

// target has the keys of the target that the pipe is.
func (p pipe) target() string {
	scheme := "https"
	if p.name == "plain" {
		scheme = "http"
	}
	keys := fmt.Sprintf("endpoint = '%s://127.0.0.1:%d'\n", scheme, p.port)
	if p.protocol == "grpc" {
		keys += "protocol = 'grpc'\n"
	}
	return keys
}

// doors are the pipes of a Collector that runs: over HTTP and gRPC, in plain text, over TLS, with
// certificates on both sides, and with a token from a file.
type doors struct {
	dir   string // with what the Collector writes
	pipes []pipe
	good  map[string]string             // keys with which one gets through, by the pipe's name
	bad   map[string]map[string]refusal // others
}

// refusal is what is said where nothing gets through.
type refusal struct{ keys, said string }

// open runs a Collector.
func (s *site) open() doors {
	t := s.T
	program := filepath.Join(toolset.Collector.Dir(needed(t, toolset.Collector)), "otelcol")
	ours, others := testkit.NewAuthority(t), testkit.NewAuthority(t)
	cert, key := ours.IssueFiles(time.Hour)
	oldCert, oldKey := ours.IssueFiles(-time.Hour)
	client, clientKey := ours.IssueFiles(time.Hour)
	oldClient, oldClientKey := ours.IssueFiles(-time.Hour)
	stranger, strangerKey := others.IssueFiles(time.Hour)

	d := doors{dir: t.TempDir()}
	token, wrong := write(t, "token", "Bearer right\n"), write(t, "wrong", "Bearer wrong-and-secret\n")
	secured := fmt.Sprintf("tls: {cert_file: %q, key_file: %q}", cert, key)
	for i, protocol := range []string{"http", "grpc"} {
		d.pipes = append(d.pipes,
			pipe{"plain", protocol, 4318 - i, ""},
			pipe{"tls", protocol, 5318 - i, secured},
			pipe{"expired", protocol, 6318 - i, fmt.Sprintf("tls: {cert_file: %q, key_file: %q}", oldCert, oldKey)},
			pipe{"mtls", protocol, 7318 - i, fmt.Sprintf("tls: {cert_file: %q, key_file: %q, client_ca_file: %q}", cert, key, ours.File())},
			pipe{"token", protocol, 8318 - i, secured + "\n        auth: {authenticator: bearertokenauth}"})
	}
	ca := fmt.Sprintf("ca = %q\n", ours.File())
	pair := func(cert, key string) string { return fmt.Sprintf("cert = %q\nkey = %q\n", cert, key) }
	header := func(file string) string { return fmt.Sprintf("header_files = { authorization = %q }\n", file) }
	d.good = map[string]string{"plain": "compression = 'none'\n", "tls": ca, "mtls": ca + pair(client, clientKey), "token": ca + header(token)}
	const of = " of [export.target.refused]"
	unknown, credential := "has a certificate of an unknown authority: set ca"+of, "is a credential wrong or missing in headers"+of
	d.bad = map[string]map[string]refusal{
		"tls":     {"the host's authorities": {"", unknown}, "another authority": {fmt.Sprintf("ca = %q\n", others.File()), unknown}},
		"expired": {"an expired server": {ca, "has a certificate that has expired"}},
		"mtls": {
			"no certificate":             {ca, "wants a certificate of shimtrace: set cert and key" + of},
			"an expired certificate":     {ca + pair(oldClient, oldClientKey), "does not accept the certificate of shimtrace, which has expired: renew cert and key" + of},
			"another authority's client": {ca + pair(stranger, strangerKey), "does not accept the certificate of shimtrace: set cert and key" + of},
		},
		"token": {"no token": {ca, credential}, "a wrong token": {ca + header(wrong), credential}},
	}
	s.serve(func() bool { return s.listens("127.0.0.1:4317") && s.listens("127.0.0.1:8318") },
		program, "--config", collectorConfig(t, d.dir, d.pipes))
	return d
}

// TestCollector compares what a real Collector has got with the journal, through each of its
// doors.
func TestCollector(t *testing.T) {
	s := start(t)
	want := s.run()
	d := s.open()
	for _, p := range d.pipes {
		if keys, there := d.good[p.name]; there {
			t.Run(p.name+" "+p.protocol, func(t *testing.T) {
				s.ship(t, p.id(), p.target()+keys)
				same(t, want, received(t, filepath.Join(d.dir, p.id()), len(want)))
			})
		}
	}
}

// TestCollectorRefuses: whoever has wrong or expired certificates, none, or a wrong token gets
// neither spans nor metrics through, loses nothing and is told why.
func TestCollectorRefuses(t *testing.T) {
	s := start(t)
	s.run()
	d := s.open()
	for _, p := range d.pipes {
		for name, b := range d.bad[p.name] {
			t.Run(p.name+" "+p.protocol+" "+name, func(t *testing.T) {
				s.refused(t, p.target()+b.keys, b.said)
				for _, file := range []string{p.id(), p.id() + metricsFile} {
					if got := messages(t, filepath.Join(d.dir, file)); len(got) > 0 {
						t.Errorf("%d messages are in %s", len(got), file)
					}
				}
			})
		}
	}
}

// metricsFile is what the name of a pipe's file with metrics ends with.
const metricsFile = "-metrics"

func collectorConfig(t *testing.T, dir string, pipes []pipe) string {
	t.Helper()
	var receivers, exporters, pipelines strings.Builder
	for _, p := range pipes {
		id := p.id()
		fmt.Fprintf(&receivers, "  otlp/%s:\n    protocols:\n      %s:\n        endpoint: 127.0.0.1:%d\n        %s\n", id, p.protocol, p.port, p.settings)
		for signal, file := range map[string]string{"traces": id, "metrics": id + metricsFile} {
			fmt.Fprintf(&exporters, "  file/%s: {path: %q, format: proto, flush_interval: 100ms}\n", file, filepath.Join(dir, file))
			fmt.Fprintf(&pipelines, "    %s/%s: {receivers: [otlp/%s], exporters: [file/%s]}\n", signal, id, id, file)
		}
	}
	return write(t, "collector.yaml", fmt.Sprintf("receivers:\n%sexporters:\n%sextensions: {bearertokenauth: {token: right}}\nservice:\n  extensions: [bearertokenauth]\n  telemetry: {metrics: {level: none}}\n  pipelines:\n%s", &receivers, &exporters, &pipelines))
}

// write writes a file of the test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	check(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// received waits for so many spans in a file of the Collector's file exporter.
func received(t *testing.T, file string, spans int) (all []otlprecv.Span) {
	t.Helper()
	until(t, "the Collector to have written all spans", func() bool {
		all = written(t, file)
		return len(all) >= spans
	})
	return all
}

// written returns the spans that are in such a file, or none before there is one.
func written(t *testing.T, file string) (all []otlprecv.Span) {
	t.Helper()
	for _, m := range messages(t, file) {
		var data tracepb.TracesData
		check(t, proto.Unmarshal(m, &data))
		all = append(all, otlprecv.Flatten(data.ResourceSpans)...)
	}
	return all
}

// messages returns the messages of OTLP that are in such a file, each behind its length.
func messages(t *testing.T, file string) (all [][]byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	check(t, err)
	for len(b) >= 4 {
		n := int(binary.BigEndian.Uint32(b))
		if len(b) < 4+n {
			break // it is being written
		}
		all, b = append(all, b[4:4+n]), b[4+n:]
	}
	return all
}

// collector returns a process that collects for the journal, with a target of the given keys
// and metrics, and what it says. Its configuration is in the file.
func (s *site) collector(ctx context.Context, t *testing.T, stateDir, target, keys string, args ...string) (cmd *exec.Cmd, said *testkit.Output, file string) {
	t.Helper()
	text := fmt.Sprintf("[journal]\ndir = %q\n[metrics]\nsend = 'on'\ninterval = '100ms'\n[export.target.%s]\n%s", s.Journal, target, keys)
	if stateDir != "" {
		text += fmt.Sprintf("[relay]\nstate_dir = %q\n", stateDir)
	}
	file = write(t, "config.toml", text)
	said = new(testkit.Output)
	cmd = s.Rig.Command(ctx, filepath.Join(s.Bin, "shimtrace"), append([]string{"collect"}, args...)...)
	cmd.Env = append(cmd.Environ(), "SHIMTRACE_CONFIG="+file)
	cmd.Stderr = said
	return cmd, said, file
}

// ship ships the journal.
func (s *site) ship(t *testing.T, target, keys string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd, said, _ := s.collector(ctx, t, s.TempDir(), target, keys, "--once")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
}

// refused collects in vain until the reason is said, of spans and of metrics.
func (s *site) refused(t *testing.T, keys, reason string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd, said, _ := s.collector(ctx, t, s.TempDir(), "refused", keys, "--service")
	check(t, cmd.Start())
	ended := func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	defer ended()
	until(t, fmt.Sprintf("%q to be said twice", reason), func() bool {
		spans, metrics := false, false
		for line := range strings.Lines(said.String()) {
			of := strings.Contains(line, reason)
			spans = spans || of && strings.HasPrefix(line, "shimtrace: refused: ") && strings.Contains(line, "nothing is lost meanwhile")
			metrics = metrics || of && strings.HasPrefix(line, "shimtrace: metrics: ")
		}
		return spans && metrics
	})
	t.Logf("said: %s", said)
	if strings.Contains(said.String(), "wrong-and-secret") {
		t.Errorf("a secret is said:\n%s", said)
	}
}
