package otlprecv_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/client"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// web is a real nginx with a server for each role, by name.
type web map[string]string // its base URL

// limit is the largest body that nginx passes on, in bytes.
const limit = 20 << 10

// startNginx runs one before the receiver.
func startNginx(t *testing.T, recv *otlprecv.Receiver) web {
	t.Helper()
	root := toolset.Nginx.Needed(t)
	dir := t.TempDir()
	cert, key := testkit.NewAuthority(t).IssueFiles(time.Hour)
	var servers strings.Builder
	w := make(web)
	add := func(name, listen, location string) {
		address := testkit.FreePort(t)
		w[name] = "http://" + address
		fmt.Fprintf(&servers, "server { listen %s %s; client_max_body_size %d; location / { %s } }\n", address, listen, limit, location)
	}
	page := `default_type text/html; return 200 "<!doctype html><title>Welcome to nginx!</title>";`
	http, gRPC := strings.TrimPrefix(recv.Endpoint(), "http://"), strings.TrimPrefix(recv.GRPCEndpoint(), "http://")
	add("files", "", "root "+dir+"/html;")
	add("page", "", page)
	add("login", "", "return 302 https://login.example/;")
	add("TLS", "ssl", page)
	add("no upstream", "", "proxy_pass http://127.0.0.1:1;")
	add("proxy", "", "proxy_pass http://"+http+";")
	add("files, for gRPC", "http2", "root "+dir+"/html;")
	add("page, for gRPC", "http2", page)
	add("proxy, for gRPC", "http2", "grpc_pass grpc://"+gRPC+";")
	temp := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temp += kind + "_temp_path " + dir + "/" + kind + ";\n"
	}
	conf := "user root;\ndaemon off;\nmaster_process off;\npid " + dir + "/pid;\nerror_log stderr crit;\nevents {}\nhttp {\naccess_log off;\n" +
		"ssl_certificate " + cert + ";\nssl_certificate_key " + key + ";\n" + temp + servers.String() + "}\n"
	for name, text := range map[string]string{"nginx.conf": conf, "html/index.html": "<title>files</title>"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var stderr strings.Builder
	cmd := exec.Command(filepath.Join(toolset.Nginx.Dir(root), "nginx"), "-p", dir, "-c", dir+"/nginx.conf", "-e", "stderr")
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	for name, url := range w {
		eventually(t, "nginx serves "+name+stderr.String(), func() bool {
			c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				return false
			}
			c.Close()
			return true
		})
	}
	return w
}

var eventually = testkit.Until

// shipping is a journal that is shipped.
type shipping struct {
	journal *journal.Journal

	mu     sync.Mutex
	failed int
	status ship.Status
}

func shipTo(t *testing.T, endpoint, protocol string) *shipping {
	t.Helper()
	cfg := config.Default().Export.Target
	cfg.Endpoint, cfg.Protocol = endpoint, protocol
	client, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.TempDir(), journal.Options{Shipped: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &shipping{journal: j}
	sh := &ship.Shipper{
		Dir: j.Dir(), Client: client, Journal: j, Drain: 10 * time.Millisecond,
		Linger: time.Millisecond, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
		Progress: func(st ship.Status) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.status = st
			if st.Err != nil {
				s.failed++
			}
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sh.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		j.Close()
	})
	return s
}

// record appends spans of several sandboxes, which gzip makes no smaller.
func (s *shipping) record(t *testing.T, n int) {
	t.Helper()
	text := func(v string) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}
	}
	for i := range n {
		noise := make([]byte, 500)
		_, _ = rand.Read(noise)
		id := make([]byte, 8)
		_, _ = rand.Read(id)
		span := &tracepb.Span{
			TraceId: append(id, id...), SpanId: id, Name: fmt.Sprint("span", i), StartTimeUnixNano: 1, EndTimeUnixNano: 2,
			Attributes: []*commonpb.KeyValue{{Key: "noise", Value: text(hex.EncodeToString(noise))}},
		}
		err := journaltest.Append(s.journal, []*tracepb.ResourceSpans{{
			Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: "container.sandbox.id", Value: text(fmt.Sprint(i % 5))}}},
			ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{span}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (s *shipping) now() (failed int, status ship.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed, s.status
}

// TestNginxInTheCollectorsPlace has a real web server answer for a collector.
func TestNginxInTheCollectorsPlace(t *testing.T) {
	recv := listen(t, otlprecv.Options{})
	nginx := startNginx(t, recv)
	for _, tt := range []struct{ server, protocol, says string }{
		{"files", "http/protobuf", "answers 404 Not Found by nginx"},
		{"page", "http/protobuf", `by nginx/`},
		{"login", "http/protobuf", "a redirection"},
		{"TLS", "http/protobuf", "https://"},
		{"no upstream", "http/protobuf", "502 Bad Gateway"},
		{"files", "grpc", "HTTP/2"},
		{"files, for gRPC", "grpc", "by HTTP, which is no gRPC"},
		{"page, for gRPC", "grpc", "by HTTP, which is no gRPC"},
		{"TLS", "grpc", "https://"},
	} {
		t.Run(tt.server+" by "+tt.protocol, func(t *testing.T) {
			s := shipTo(t, nginx[tt.server], tt.protocol)
			s.record(t, 10)
			var said string
			eventually(t, "attempts", func() bool {
				failed, st := s.now()
				if st.Err != nil {
					said = st.Err.Error()
				}
				return failed > 8
			})
			if _, st := s.now(); st.Shipped > 0 || len(st.Rejected) > 0 {
				t.Errorf("shipped %d, lost %v", st.Shipped, st.Rejected)
			}
			if !strings.Contains(said, tt.says) {
				t.Errorf("says %q, want %q", said, tt.says)
			}
		})
	}
	reliability.Row(t, reliability.Fault{Area: "Collectors",
		Fault: "a real nginx is in the collector's place: files, a page, a redirection, TLS, nothing behind it; by HTTP and gRPC",
		Pod:   "nothing", Lost: "nothing"})
}

// TestNginxLimitsUploads has a real proxy before the collector, whose limit is below
// what is uploaded at once.
func TestNginxLimitsUploads(t *testing.T) {
	for server, protocol := range map[string]string{"proxy": "http/protobuf", "proxy, for gRPC": "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			recv := listen(t, otlprecv.Options{})
			nginx := startNginx(t, recv)
			s := shipTo(t, nginx[server], protocol)
			const n = 200 // of 1 KiB
			s.record(t, n)
			distinct := func(spans []otlprecv.Span) bool {
				seen := make(map[string]bool)
				for _, span := range spans {
					seen[span.ID] = true
				}
				return len(seen) == n
			}
			if _, err := recv.Wait(time.Minute, distinct); err != nil {
				_, st := s.now()
				t.Fatalf("%v; %+v", err, st)
			}
			if _, st := s.now(); len(st.Rejected) > 0 {
				t.Errorf("lost %v", st.Rejected)
			}
		})
	}
	reliability.Row(t, reliability.Fault{Area: "Collectors",
		Fault: "a real nginx before the collector takes no body above 20 KiB (client_max_body_size), and uploads are of 200 KiB",
		Pod:   "nothing", Lost: "nothing"})
}
