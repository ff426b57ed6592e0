package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// area is the part of docs/reliability.md that this package's tests write.
const area = "Collectors"

// A stranger listens where a collector should.
type stranger struct {
	is       string // for docs/reliability.md
	protocol string
	scheme   string // http if empty
	serve    func(t *testing.T, l net.Listener) (stop func())
	says     string // in the log: what answers
	advises  string // and what to do
}

func answering(status int, kind, body string, header ...string) func(*testing.T, net.Listener) func() {
	return func(t *testing.T, l net.Listener) func() {
		return serveHandler(t, l, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
}

// serveHandler serves HTTP/1.1 and HTTP/2, without TLS.
func serveHandler(t *testing.T, l net.Listener, h http.HandlerFunc) (stop func()) {
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return serve(t, func() { _ = srv.Serve(l) }, func() { srv.Close() })
}

func anyTLS(t *testing.T, l net.Listener) func() {
	cert := testkit.NewAuthority(t).Issue(time.Hour)
	srv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: quiet}
	return serve(t, func() {
		_ = srv.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}))
	},
		func() { srv.Close() })
}

func otherGRPC(t *testing.T, l net.Listener) func() {
	srv := grpc.NewServer()
	healthpb.RegisterHealthServer(srv, health.NewServer())
	return serve(t, func() { _ = srv.Serve(l) }, srv.Stop)
}

// banner speaks first, as SSH does.
func banner(t *testing.T, l net.Listener) func() {
	var conns sync.WaitGroup
	return serve(t, func() {
		for {
			c, err := l.Accept()
			if err != nil {
				conns.Wait()
				return
			}
			conns.Go(func() {
				defer c.Close()
				_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				_, _ = io.Copy(io.Discard, io.LimitReader(c, 64))
			})
		}
	}, func() { l.Close() })
}

// closing accepts connections and closes them.
func closing(t *testing.T, l net.Listener) func() {
	return serve(t, func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}, func() { l.Close() })
}

const (
	overHTTP = "http/protobuf"
	overGRPC = "grpc"
	uiPage   = "<!doctype html><html><head><title>Jaeger UI</title></head><body></body></html>"
	nginx413 = "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body><hr><center>nginx/1.22.1</center></body></html>"
	noHTTP2  = "does not answer in HTTP/2"
	esBody   = `{"error":{"root_cause":[{"type":"illegal_argument_exception"}],"type":"illegal_argument_exception"},"status":400}`
)

var strangers = []stranger{
	{is: "a UI's page, with status 200", protocol: overHTTP, serve: answering(200, "text/html; charset=utf-8", uiPage, "Server", "nginx/1.22.1"),
		says: `200 OK by nginx/1.22.1 with a web page, which is no OTLP`, advises: "4318"},
	{is: "text, with status 200", protocol: overHTTP, serve: answering(200, "text/plain", "OK"), says: "200 OK with text", advises: "4318"},
	{is: "another program's JSON, with status 200", protocol: overHTTP, serve: answering(200, "application/json", `{"status":"green"}`), says: "JSON that is no OTLP", advises: "4318"},
	{is: "a web server's page, with status 404", protocol: overHTTP, serve: answering(404, "text/html", "<html><title>404 Not Found</title></html>"), says: "404 Not Found with a web page", advises: "base URL"},
	{is: "a proxy's page, with status 400", protocol: overHTTP, serve: answering(400, "text/html", "<html><title>ERROR: The requested URL could not be retrieved</title></html>", "Server", "squid/5.7"), says: "400 Bad Request by squid/5.7 with a web page"},
	{is: "a proxy's page, with status 413", protocol: overHTTP, serve: answering(413, "text/html", nginx413), says: "413 Request Entity Too Large with a web page", advises: "size"},
	{is: "text, with status 415", protocol: overHTTP, serve: answering(415, "text/plain", "unsupported media type"), says: "415 Unsupported Media Type with text", advises: "protobuf"},
	{is: "Elasticsearch's error, with status 400", protocol: overHTTP, serve: answering(400, "application/json", esBody), says: "400 Bad Request with JSON that is no OTLP"},
	{is: "a redirection", protocol: overHTTP, serve: answering(302, "text/html", "", "Location", "https://login.example/"), says: "302 Found, a redirection", advises: "set the endpoint"},
	{is: "a demand for a credential", protocol: overHTTP, serve: answering(401, "application/json", `{"message":"Unauthorized"}`), says: "401 Unauthorized", advises: "credential"},
	{is: "TLS, where the endpoint says http", protocol: overHTTP, serve: anyTLS, says: "400 Bad Request", advises: "https://"},
	{is: "no TLS, where the endpoint says https", protocol: overHTTP, scheme: "https", serve: answering(200, "text/plain", "OK"), says: "speaks without TLS", advises: "http://"},
	{is: "gRPC, for HTTP", protocol: overHTTP, serve: otherGRPC, says: "speaks HTTP/2 only", advises: `to "grpc"`},
	{is: "SSH", protocol: overHTTP, serve: banner, says: "speaks no HTTP"},
	{is: "nothing, and ends the connection", protocol: overHTTP, serve: closing, says: "ends the connection without an answer"},

	{is: "HTTP without HTTP/2, for gRPC", protocol: overGRPC, serve: func(t *testing.T, l net.Listener) func() {
		srv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: quiet}
		return serve(t, func() { _ = srv.Serve(l) }, func() { srv.Close() })
	}, says: noHTTP2, advises: "protocol"},
	{is: "a web page, with status 200", protocol: overGRPC, serve: answering(200, "text/html", uiPage), says: "200 (OK) by HTTP, which is no gRPC", advises: "4317"},
	{is: "a web page, with status 404", protocol: overGRPC, serve: answering(404, "text/html", uiPage), says: "404 (Not Found) by HTTP, which is no gRPC", advises: "4317"},
	{is: "a web page, with status 413", protocol: overGRPC, serve: answering(413, "text/html", nginx413), says: "413", advises: "4317"},
	{is: "a web page, with status 502", protocol: overGRPC, serve: answering(502, "text/html", uiPage), says: "502 (Bad Gateway) by HTTP, which is no gRPC"},
	{is: "TLS, where the endpoint says http", protocol: overGRPC, serve: anyTLS, says: noHTTP2, advises: "https://"},
	{is: "no TLS, where the endpoint says https", protocol: overGRPC, scheme: "https", serve: answering(200, "text/plain", "OK"), says: "speaks without TLS", advises: "http://"},
	{is: "another gRPC service", protocol: overGRPC, serve: otherGRPC, says: "Unimplemented", advises: "takes no OTLP traces here"},
	{is: "SSH", protocol: overGRPC, serve: banner, says: noHTTP2},
	{is: "nothing, and ends the connection", protocol: overGRPC, serve: closing, says: noHTTP2},
}

// TestStrangersCostNothing ships to each of them, until a collector replaces it.
func TestStrangersCostNothing(t *testing.T) {
	for _, s := range strangers {
		t.Run(s.protocol+" "+s.is, func(t *testing.T) {
			t.Parallel()
			address := testkit.FreePort(t)
			l := listen(t, address)
			cfg := exportTo(l, s.protocol, "")
			if s.scheme != "" {
				cfg.Endpoint = s.scheme + "://" + address
			}
			stop := s.serve(t, l)
			run := shipTo(t, cfg)
			for i := range 40 {
				run.record(t, fmt.Sprint("sandbox", i%4), fmt.Sprint("span", i))
			}
			eventually(t, "attempts", func() bool { return run.failures() >= 12 })
			run.checkPace(t)
			if d := run.drops(t); len(d) > 0 {
				t.Errorf("lost: %v", d)
			}
			causes := run.causes()
			// A connection closed at once is sometimes noticed only in writing.
			specific := slices.DeleteFunc(causes, func(c string) bool {
				return strings.Contains(c, "ends the connection without an answer") && !strings.Contains(c, s.says)
			})
			if len(specific) > 1 || len(specific) == 0 && s.says != noHTTP2 {
				t.Errorf("said %q, want one of them", causes)
			}
			for _, c := range specific {
				if !strings.Contains(c, s.says) || !strings.Contains(c, s.advises) {
					t.Errorf("says %q, want %q and %q", c, s.says, s.advises)
				}
			}
			if run.shipped() > 0 {
				t.Errorf("%d spans counted as shipped", run.shipped())
			}
			if s.scheme == "" { // otherwise it would have to have a certificate
				s.replace(t, stop, address, run)
			}
			reliability.Row(t, reliability.Fault{Area: area,
				Fault: "by " + s.protocol + ", in the collector's place is " + s.is,
				Pod:   "nothing", Lost: "nothing"})
		})
	}
}

// replace starts a collector in the stranger's place.
func (s *stranger) replace(t *testing.T, stop func(), address string, run *shipping) {
	t.Helper()
	stop()
	c := &collector{}
	if s.protocol == overGRPC {
		c.serveGRPC(t, listen(t, address))
	} else {
		c.serveHTTP(t, listen(t, address))
	}
	eventually(t, "everything arrives", func() bool { return c.distinct() == 40 })
	if d := run.drops(t); len(d) > 0 {
		t.Errorf("lost: %v", d)
	}
}

// shipping is a journal being shipped, with the shipper's messages.
type shipping struct {
	journal *journal.Journal
	began   time.Time

	mu     sync.Mutex
	failed int
	said   map[string]int
	status ship.Status
}

// testPause is the shipper's pause between two attempts.
const testPause = 20 * time.Millisecond

func shipTo(t *testing.T, cfg config.Target) *shipping {
	t.Helper()
	j, err := journal.Open(t.TempDir(), journal.Options{Shipped: true})
	if err != nil {
		t.Fatal(err)
	}
	client, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &shipping{journal: j, began: time.Now(), said: make(map[string]int)}
	sh := &ship.Shipper{
		Dir: j.Dir(), Client: client, Journal: j, BatchBytes: 1 << 10, Drain: 10 * time.Millisecond,
		Linger: time.Millisecond, MinBackoff: testPause, MaxBackoff: testPause, Progress: s.progress,
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

func (s *shipping) progress(st ship.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = st
	if st.Err != nil {
		s.failed++
		s.said[causeOf(st.Err)]++
	}
}

func (s *shipping) record(t *testing.T, sandbox string, names ...string) {
	t.Helper()
	rs := spans(names...)
	rs[0].Resource = resourceOf(sandbox)
	if err := journaltest.Append(s.journal, rs); err != nil {
		t.Fatal(err)
	}
}

func (s *shipping) failures() int { s.mu.Lock(); defer s.mu.Unlock(); return s.failed }
func (s *shipping) notice() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Notice == nil {
		return ""
	}
	return s.status.Notice.Error()
}
func (s *shipping) shipped() int { s.mu.Lock(); defer s.mu.Unlock(); return s.status.Shipped }

func (s *shipping) causes() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.said {
		list = append(list, c)
	}
	return list
}

// checkPace checks the pauses between attempts: half of each pause is random, and two
// uploads run at a time.
func (s *shipping) checkPace(t *testing.T) {
	t.Helper()
	n := s.failures()
	if most := 2*int(time.Since(s.began)/(testPause/2)) + 4; n > most {
		t.Errorf("%d attempts in %v", n, time.Since(s.began))
	}
}

func (s *shipping) drops(t *testing.T) map[string]int {
	t.Helper()
	total := make(map[string]int)
	if _, err := journal.Scan(s.journal.Dir(), func(r journal.Record) error {
		if r.Kind == journal.KindTraces {
			return nil
		}
		d, err := r.Drops()
		for k, v := range d {
			total[k] += v
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return total
}

// causeOf returns the part of an error that is the same at each attempt.
func causeOf(err error) string {
	var c interface{ Cause() string }
	if errors.As(err, &c) {
		return c.Cause()
	}
	return err.Error()
}
