package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/disktest"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/host/hosttest"
)

// otlpEndpoint is a running shimtrace collect with an OTLP endpoint.
type otlpEndpoint struct {
	*receiving
	tcp, unix string
}

func startOTLP(t *testing.T, more string) *otlpEndpoint {
	t.Helper()
	config, state, at := receiveConfig(t)
	_, _, tcp := receiveConfig(t)
	e := &otlpEndpoint{tcp: tcp, unix: filepath.Join(state, "otlp.sock")}
	config += fmt.Sprintf("[otlp]\nlisten = [%q, %q]\n%s", "unix:"+e.unix, tcp, more)
	e.receiving = &receiving{newTool(t, config, "collect"), state, at, ""}
	e.start()
	e.says("programs may send OTLP to " + tcp)
	e.says("programs may send OTLP to unix:" + e.unix)
	return e
}

// exporters are OpenTelemetry's, one for each way to the endpoint. They send once.
func (e *otlpEndpoint) exporters(t *testing.T) map[string]otlptrace.Client {
	t.Helper()
	all := map[string]otlptrace.Client{
		"gRPC": otlptracegrpc.NewClient(otlptracegrpc.WithEndpoint(e.tcp), otlptracegrpc.WithInsecure(), otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{})),
		"HTTP": otlptracehttp.NewClient(otlptracehttp.WithEndpoint(e.tcp), otlptracehttp.WithInsecure(), otlptracehttp.WithRetry(otlptracehttp.RetryConfig{})),
		"Unix": otlptracegrpc.NewClient(otlptracegrpc.WithEndpoint("unix://"+e.unix), otlptracegrpc.WithInsecure(), otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{})),
	}
	for _, c := range all {
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Stop(context.Background()) })
	}
	return all
}

func attribute(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

var lastSpan atomic.Uint64

// program returns n spans that a service of the host would send, in a trace of their own.
func program(service string, n int, attributes ...*commonpb.KeyValue) *tracepb.ResourceSpans {
	var spans []*tracepb.Span
	now := uint64(time.Now().UnixNano())
	traceID := binary.BigEndian.AppendUint64(make([]byte, 8), lastSpan.Add(1))
	for range n {
		spans = append(spans, &tracepb.Span{
			TraceId: traceID, SpanId: binary.BigEndian.AppendUint64(nil, lastSpan.Add(1)), Name: "step",
			StartTimeUnixNano: now, EndTimeUnixNano: now + 1e6, Attributes: attributes,
		})
	}
	return &tracepb.ResourceSpans{
		Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attribute("service.name", service)}},
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "s"}, Spans: spans}},
	}
}

// posted returns the journal's spans of other programs, by id.
func posted(t *testing.T, state string) map[string]*tracepb.Span {
	t.Helper()
	all := make(map[string]*tracepb.Span)
	if _, err := journal.Scan(filepath.Join(state, "journal"), func(r journal.Record) error {
		if r.Kind != journal.KindPosted {
			return nil
		}
		td, err := r.Traces()
		for _, rs := range td.GetResourceSpans() {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					all[string(s.SpanId)] = s
				}
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func send(t *testing.T, c otlptrace.Client, spans ...*tracepb.ResourceSpans) error {
	ctx, cancel := context.WithTimeout(t.Context(), forwardPatience)
	defer cancel()
	return c.UploadTraces(ctx, spans)
}

// TestCollectOTLP: what programs send is in the journal when they have their answer, as
// they sent it.
func TestCollectOTLP(t *testing.T) {
	e := startOTLP(t, "")
	sent := 0
	for name, c := range e.exporters(t) {
		if err := send(t, c, program("containerd", 3, attribute("image", "busybox"))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		sent += 3
		got := posted(t, e.state)
		if len(got) != sent {
			t.Errorf("%s: %d of %d spans are there", name, len(got), sent)
		}
		for _, s := range got {
			if len(s.Attributes) != 1 || s.Attributes[0].Value.GetStringValue() != "busybox" {
				t.Errorf("%s: a span has lost its attribute: %v", name, s)
			}
		}
	}
	e.stop()
	e.says("9 spans of other programs")
	if lost := drops(t, e.state); len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
	if _, err := os.Lstat(e.unix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// TestCollectOTLPKilled: what was answered is in the journal, whenever the process is
// killed; what was not, its program still has.
func TestCollectOTLPKilled(t *testing.T) {
	e := startOTLP(t, "")
	var mu sync.Mutex
	taken := make(map[string]bool)
	var sending sync.WaitGroup
	for _, c := range e.exporters(t) {
		sending.Go(func() {
			for {
				spans := program("containerd", 7)
				if send(t, c, spans) != nil {
					return
				}
				mu.Lock()
				for _, s := range spans.ScopeSpans[0].Spans {
					taken[string(s.SpanId)] = true
				}
				mu.Unlock()
			}
		})
	}
	eventually(t, "many are taken", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(taken) > 2000
	})
	if err := e.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	sending.Wait()
	_ = e.cmd.Wait()
	got := posted(t, e.state)
	for id := range taken {
		if got[id] == nil {
			t.Fatalf("of %d spans that were taken at least one is lost", len(taken))
		}
	}
}

// TestCollectOTLPOfRuntimes: a Kata runtime that speaks OTLP is known by its process, or
// by its name, and its spans go to its sandbox's relay alone, reduced like those that it
// posts to Jaeger.
func TestCollectOTLPOfRuntimes(t *testing.T) {
	e := startOTLP(t, "")
	mine := e.relay(t, "mine", os.Getpid()) // the test sends
	other := e.relay(t, "c58a3c91f00d")
	e.says("2 sandboxes")
	// Over TCP, the process is looked for when it connects, and may be found later.
	var want []trace.SpanID
	for name, c := range e.exporters(t) {
		for _, service := range []string{"an unknown runtime", "kata-sb-c58a3c91"} {
			spans := program(service, 1, attribute("spec", "SECRET=hunter2"))
			if err := send(t, c, spans); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want = append(want, trace.SpanID(spans.ScopeSpans[0].Spans[0].SpanId))
		}
	}
	eventually(t, "all arrive", func() bool { return len(mine.got()) == len(want) })
	mine.gets(t, want)
	if n := len(other.got()); n != 0 {
		t.Errorf("%d spans went where they claim to belong", n)
	}
	e.stop()
	if n := len(posted(t, e.state)); n != 0 {
		t.Errorf("%d spans of runtimes are in the journal as they came", n)
	}
}

// TestCollectOTLPStrangers: other users are not listened to, unless they are configured;
// and nothing of theirs reaches a relay.
func TestCollectOTLPStrangers(t *testing.T) {
	e := startOTLP(t, fmt.Sprintf("users = [%d]\n", hosttest.Nobody-1))
	relay := e.relay(t, "c58a3c91f00d")
	e.says("1 sandbox")
	as := func(uid int, service string) error {
		var conn net.Conn
		var err error
		<-hosttest.AsUser(t, uid, func() { conn, err = net.Dial("tcp", e.tcp) })
		if err != nil {
			return err
		}
		defer conn.Close()
		c := otlptracehttp.NewClient(otlptracehttp.WithEndpoint(e.tcp), otlptracehttp.WithInsecure(), otlptracehttp.WithRetry(otlptracehttp.RetryConfig{}),
			otlptracehttp.WithHTTPClient(oneConnection(conn)))
		return send(t, c, program(service, 1))
	}
	if err := as(hosttest.Nobody, "flood"); err == nil {
		t.Error("a stranger is listened to")
	}
	if err := as(hosttest.Nobody-1, "kata-sb-c58a3c91"); err != nil {
		t.Errorf("a configured user is not listened to: %v", err)
	}
	if n := len(posted(t, e.state)); n != 1 || len(relay.got()) != 0 {
		t.Errorf("%d spans in the journal, %d at the relay", n, len(relay.got()))
	}
	e.stop()
	if lost := drops(t, e.state); len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
}

// TestCollectOTLPFollowsConfiguration: addresses come and go with the configuration, and
// the process stays as long as there is one.
func TestCollectOTLPFollowsConfiguration(t *testing.T) {
	config, state, _ := receiveConfig(t)
	config = strings.Replace(config, `receive = "on"`, `receive = "auto"`, 1)
	path := filepath.Join(state, "otlp.sock")
	e := newTool(t, config, "collect", "--idle", "1s")
	write := func(text string) { e.rewrite(config + text) }
	write(fmt.Sprintf("[otlp]\nlisten = [%q]\n", "unix:"+path))
	e.start()
	e.says("programs may send OTLP to unix:" + path)
	_, _, tcp := receiveConfig(t)
	write(fmt.Sprintf("[otlp]\nlisten = [%q]\n", tcp))
	e.says("programs may send OTLP to " + tcp)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	write("# nothing\n")
	e.ends(console.OK)
}

// TestCollectService: a service waits while another process collects, and goes on for it.
func TestCollectService(t *testing.T) {
	config, _, _ := receiveConfig(t)
	first, service := newTool(t, config, "collect"), newTool(t, config, "collect", "--service", "--idle", "1ms")
	first.start()
	first.says("runtimes may post")
	service.start()
	service.says("waiting for its end")
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait()
	service.says("runtimes may post")
	service.stop()
}

// oneConnection returns a client with the connection, for one request.
func oneConnection(conn net.Conn) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
}

// TestCollectOTLPOnAHungJournal: while the journal's disk does not answer, or fails,
// programs are told to send later, and none waits for long.
func TestCollectOTLPOnAHungJournal(t *testing.T) {
	dir, release := disktest.Hung(t)
	config, state, at := receiveConfig(t)
	_, _, tcp := receiveConfig(t)
	config = strings.Replace(config, strconv.Quote(filepath.Join(state, "journal")), strconv.Quote(dir), 1)
	config += fmt.Sprintf("[otlp]\nlisten = [%q]\n", tcp)
	e := &otlpEndpoint{tcp: tcp, receiving: &receiving{newTool(t, config, "collect"), state, at, ""}}
	e.start()
	e.says("programs may send OTLP to " + tcp)
	c := otlptracehttp.NewClient(otlptracehttp.WithEndpoint(tcp), otlptracehttp.WithInsecure(), otlptracehttp.WithRetry(otlptracehttp.RetryConfig{}))
	for i := range 3 {
		began := time.Now()
		err := send(t, c, program("containerd", 3))
		if err == nil || !strings.Contains(err.Error(), "try again later") {
			t.Errorf("post %d: %v", i, err)
		}
		if took := time.Since(began); took > forwardPatience/2 {
			t.Errorf("post %d waited for %v", i, took)
		}
	}
	release()
	eventually(t, "the disk fails", func() bool {
		err := send(t, c, program("containerd", 3))
		return err != nil && strings.Contains(err.Error(), "the journal does not take spans")
	})
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.stop()
}
