package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// result is the outcome of a command line.
type result struct {
	code           int
	stdout, stderr string
}

// command runs a command line with the given environment only. Its journal is not the host's.
func command(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	if env["SHIMTRACE_CONFIG"] == "" {
		file := t.TempDir() + "/config.toml"
		if err := os.WriteFile(file, fmt.Appendf(nil, "[journal]\ndir = %q\n", t.TempDir()), 0o600); err != nil {
			t.Fatal(err)
		}
		merged := map[string]string{"SHIMTRACE_CONFIG": file}
		for k, v := range env {
			merged[k] = v
		}
		env = merged
	}
	var out, errs bytes.Buffer
	h := &host{stdout: &out, stderr: &errs, getenv: func(k string) string { return env[k] }, executable: resolvedExecutable}
	code := run(t.Context(), h, append([]string{"shimtrace"}, args...))
	return result{code, out.String(), errs.String()}
}

// want checks the exit code, and that stdout and stderr contain the texts.
func (r result) want(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.stdout, stdout) || !strings.Contains(r.stderr, stderr) {
		t.Errorf("exit code %d, want %d; stdout should have %q, stderr %q\nstdout: %s\nstderr: %s", r.code, code, stdout, stderr, r.stdout, r.stderr)
	}
	if stdout == "" && r.stdout != "" {
		t.Errorf("stdout should be empty: %s", r.stdout)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range []string{
		"nothing", "--nope", "list --nope", "list extra", "list --limit -1", "list --limit x", "show a b", "show --width -3",
		"ship extra", "ship --once --follow", "ship --idle -1s", "version extra", "install Bad/Name", "install traced",
	} {
		t.Run(args, func(t *testing.T) {
			r := command(t, nil, strings.Fields(args)...)
			r.want(t, console.Usage, "", "shimtrace: ")
		})
	}
}

func TestHelp(t *testing.T) {
	command(t, nil).want(t, console.OK, "COMMANDS:", "")
	for _, name := range []string{"install", "doctor", "list", "show", "on", "off", "status", "collect", "version"} {
		command(t, nil, name, "--help").want(t, console.OK, "Example", "")
	}
}

func TestVersion(t *testing.T) {
	command(t, nil, "version").want(t, console.OK, "go1.", "")
	command(t, nil, "version", "--json").want(t, console.OK, `"go":"go1.`, "")
}

// sandbox is one traced container in a test's journal.
type sandbox struct {
	id, container, pod, namespace string
	trace                         string
	after                         time.Duration
	failed                        bool
}

func (s sandbox) traceID() []byte { h := sha256.Sum256([]byte(s.trace)); return h[:16] }

func text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

func (s sandbox) spans() []*tracepb.ResourceSpans {
	res := &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
		text("service.name", "containerd-shim-runc-v2"), text("shimtrace.sandbox.id", s.id),
		text("k8s.pod.name", s.pod), text("k8s.namespace.name", s.namespace),
	}}
	start := uint64(time.Date(2026, 8, 12, 10, 0, 0, 0, time.UTC).Add(s.after).UnixNano())
	root := &tracepb.Span{
		TraceId: s.traceID(), SpanId: s.traceID()[:8], Name: "sandbox start", StartTimeUnixNano: start, EndTimeUnixNano: start + 2e8,
	}
	call := &tracepb.Span{
		TraceId: s.traceID(), SpanId: s.traceID()[8:], ParentSpanId: root.SpanId, Name: "containerd.task.v3.Task/Create",
		StartTimeUnixNano: start + 1e8, EndTimeUnixNano: start + 15e7,
		Attributes: []*commonpb.KeyValue{text("container.id", s.id), text("container.name", s.container)},
	}
	if s.failed {
		call.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "no such image"}
	}
	return []*tracepb.ResourceSpans{{Resource: res, ScopeSpans: []*tracepb.ScopeSpans{{
		Scope: &commonpb.InstrumentationScope{Name: "github.com/shimtrace/shimtrace/shim"}, Spans: []*tracepb.Span{root, call},
	}}}}
}

// writeJournal returns the directory of a journal with the sandboxes' spans.
func writeJournal(t *testing.T, sandboxes ...sandbox) string {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sandboxes {
		if err := journaltest.Append(j, s.spans()); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}
