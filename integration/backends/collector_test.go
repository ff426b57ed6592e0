package backends

import (
	"context"
	"encoding/binary"
	"fmt"
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

// pipe is a pipeline of a Collector, from a port of OTLP to a file.
type pipe struct {
	name, protocol string // http or grpc
	port           int
	settings       string // of the receiver
}

// TestCollector compares what a real Collector has got with the journal: over HTTP and
// gRPC, compressed, in plain text, over TLS, with certificates on both sides, and with a
// token. Whoever has wrong or expired certificates, none, or a wrong token gets nothing
// through, loses nothing and is told why.
func TestCollector(t *testing.T) {
	program := filepath.Join(toolset.Collector.Dir(needed(t, toolset.Collector)), "otelcol")
	ours, others := testkit.NewAuthority(t), testkit.NewAuthority(t)
	cert, key := ours.IssueFiles(time.Hour)
	oldCert, oldKey := ours.IssueFiles(-time.Hour)
	client, clientKey := ours.IssueFiles(time.Hour)
	oldClient, oldClientKey := ours.IssueFiles(-time.Hour)
	stranger, strangerKey := others.IssueFiles(time.Hour)

	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	check(t, os.WriteFile(token, []byte("Bearer right\n"), 0o600))
	wrong := filepath.Join(dir, "wrong")
	check(t, os.WriteFile(wrong, []byte("Bearer wrong-and-secret\n"), 0o600))

	secured := fmt.Sprintf("tls: {cert_file: %q, key_file: %q}", cert, key)
	var pipes []pipe
	for i, protocol := range []string{"http", "grpc"} {
		pipes = append(pipes,
			pipe{"plain", protocol, 4318 - i, ""},
			pipe{"tls", protocol, 5318 - i, secured},
			pipe{"expired", protocol, 6318 - i, fmt.Sprintf("tls: {cert_file: %q, key_file: %q}", oldCert, oldKey)},
			pipe{"mtls", protocol, 7318 - i, fmt.Sprintf("tls: {cert_file: %q, key_file: %q, client_ca_file: %q}", cert, key, ours.File())},
			pipe{"token", protocol, 8318 - i, secured + "\n        auth: {authenticator: bearertokenauth}"})
	}
	s := start(t)
	want := s.run()
	s.serve(func() bool { return s.listens("127.0.0.1:4317") && s.listens("127.0.0.1:8318") },
		program, "--config", collectorConfig(t, dir, pipes))

	ca := fmt.Sprintf("ca = %q\n", ours.File())
	pair := func(cert, key string) string { return fmt.Sprintf("cert = %q\nkey = %q\n", cert, key) }
	for _, p := range pipes {
		endpoint := fmt.Sprintf("endpoint = 'https://127.0.0.1:%d'\nprotocol = 'grpc'\n", p.port)
		if p.protocol == "http" {
			endpoint = fmt.Sprintf("endpoint = 'https://127.0.0.1:%d'\n", p.port)
		}
		if p.name == "plain" {
			endpoint = strings.Replace(endpoint, "https", "http", 1)
		}
		good := map[string]string{"plain": "compression = 'none'\n", "tls": ca, "mtls": ca + pair(client, clientKey), "token": ca + fmt.Sprintf("header_files = { authorization = %q }\n", token)}
		bad := map[string]map[string]struct{ keys, said string }{
			"tls":     {"the host's authorities": {"", "unknown authority"}, "another authority": {fmt.Sprintf("ca = %q\n", others.File()), "unknown authority"}},
			"expired": {"an expired server": {ca, "expired"}},
			"mtls": {
				"no certificate":             {ca, "certificate required"},
				"an expired certificate":     {ca + pair(oldClient, oldClientKey), "expired"},
				"another authority's client": {ca + pair(stranger, strangerKey), "certificate"},
			},
			"token": {"no token": {ca, "auth"}, "a wrong token": {ca + fmt.Sprintf("header_files = { authorization = %q }\n", wrong), "auth"}},
		}
		for name, b := range bad[p.name] {
			if p.name == "mtls" && p.protocol == "grpc" {
				b.said = "nothing is lost meanwhile" // in TLS 1.3 the server ends the connection afterwards
			}
			t.Run(p.name+" "+p.protocol+" "+name, func(t *testing.T) { s.refused(t, endpoint+b.keys, b.said) })
		}
		if keys, there := good[p.name]; there {
			t.Run(p.name+" "+p.protocol, func(t *testing.T) {
				s.ship(t, p.name+p.protocol, endpoint+keys)
				same(t, want, received(t, filepath.Join(dir, p.name+p.protocol), len(want)))
			})
		}
	}
}

func collectorConfig(t *testing.T, dir string, pipes []pipe) string {
	t.Helper()
	var receivers, exporters, pipelines strings.Builder
	for _, p := range pipes {
		id := p.name + p.protocol
		fmt.Fprintf(&receivers, "  otlp/%s:\n    protocols:\n      %s:\n        endpoint: 127.0.0.1:%d\n        %s\n", id, p.protocol, p.port, p.settings)
		fmt.Fprintf(&exporters, "  file/%s: {path: %q, format: proto, flush_interval: 100ms}\n", id, filepath.Join(dir, id))
		fmt.Fprintf(&pipelines, "    traces/%s: {receivers: [otlp/%s], exporters: [file/%s]}\n", id, id, id)
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

// received waits for so many spans in a file of the Collector's file exporter: messages of
// OTLP, each behind its length.
func received(t *testing.T, file string, spans int) (all []otlprecv.Span) {
	t.Helper()
	until(t, "the Collector to have written all spans", func() bool {
		b, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		all = nil
		for len(b) >= 4 {
			n := int(binary.BigEndian.Uint32(b))
			if len(b) < 4+n {
				break // it is being written
			}
			var data tracepb.TracesData
			check(t, proto.Unmarshal(b[4:4+n], &data))
			all = append(all, otlprecv.Flatten(data.ResourceSpans)...)
			b = b[4+n:]
		}
		return len(all) >= spans
	})
	return all
}

// shipper returns a process that ships the journal once to a target with the given keys,
// and what it says.
func (s *site) shipper(ctx context.Context, t *testing.T, target, keys string) (cmd *exec.Cmd, said *testkit.Output) {
	t.Helper()
	config := write(t, "config.toml", fmt.Sprintf("[journal]\ndir = %q\n[relay]\nstate_dir = %q\n[export.target.%s]\n%s", s.Journal, s.TempDir(), target, keys))
	said = new(testkit.Output)
	cmd = s.Rig.Command(ctx, filepath.Join(s.Bin, "shimtrace"), "collect", "--once")
	cmd.Env = append(cmd.Environ(), "SHIMTRACE_CONFIG="+config)
	cmd.Stderr = said
	return cmd, said
}

// ship ships the journal.
func (s *site) ship(t *testing.T, target, keys string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd, said := s.shipper(ctx, t, target, keys)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
}

// refused ships the journal in vain until the reason is said.
func (s *site) refused(t *testing.T, keys, reason string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd, said := s.shipper(ctx, t, "refused", keys)
	check(t, cmd.Start())
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	until(t, fmt.Sprintf("%q to be said", reason), func() bool {
		if strings.Contains(strings.ToLower(said.String()), reason) {
			return true
		}
		select {
		case err := <-over:
			t.Fatalf("it has ended: %v\n%s", err, said)
		default:
		}
		return false
	})
	t.Logf("said: %s", said)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := <-over; err == nil {
		t.Errorf("it was taken:\n%s", said)
	}
	if strings.Contains(said.String(), "wrong-and-secret") {
		t.Errorf("a secret is said:\n%s", said)
	}
}
