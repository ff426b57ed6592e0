package client

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/export/ship"
)

// checkVerdict checks what must be true of the verdict on any answer.
func checkVerdict(t *testing.T, v verdict, spans int) {
	t.Helper()
	var rejected *ship.RejectedError
	var busy *ship.BusyError
	var taken *ship.TakenError
	switch {
	case v.err == nil, errors.As(v.err, &taken):
		if !v.otlp {
			t.Error("taken, and not by OTLP")
		}
	case errors.As(v.err, &rejected):
		final := rejected.Tries == 0
		if final && !v.otlp {
			t.Errorf("lost by what is no OTLP: %v", v.err)
		}
		if rejected.Spans != ship.AllSpans && (rejected.Spans <= 0 || rejected.Spans > spans) {
			t.Errorf("%d of %d spans rejected", rejected.Spans, spans)
		}
		if rejected.Tries < 0 {
			t.Errorf("%d tries", rejected.Tries)
		}
	case errors.As(v.err, &busy):
		if busy.After <= 0 {
			t.Errorf("a pause of %v", busy.After)
		}
	}
	if v.err == nil {
		return
	}
	text := v.err.Error()
	if len(text) > 2<<10 || !utf8.ValidString(text) || strings.ContainsAny(text, "\n\r\x1b\x00") || strings.Contains(text, "s3cret") {
		t.Errorf("says %q", text)
	}
}

// FuzzHTTPAnswer judges answers by HTTP of any kind.
func FuzzHTTPAnswer(f *testing.F) {
	partial, _ := proto.Marshal(&coltracepb.ExportTraceServiceResponse{PartialSuccess: &coltracepb.ExportTracePartialSuccess{RejectedSpans: 2, ErrorMessage: "why"}})
	failure, _ := proto.Marshal(&spb.Status{Code: 3, Message: "invalid"})
	for _, status := range []int{200, 204, 302, 400, 413, 415, 503} {
		for _, kind := range []string{"", "application/x-protobuf", "application/json", "text/html", "text/plain; charset=\xff"} {
			for _, body := range [][]byte{nil, partial, failure, []byte(`{}`), []byte(`{"partialSuccess":{"rejectedSpans":"2"}}`), []byte(`{"code":3}`), []byte("<title>x s3cret</title>"), []byte("s3cret\x1b[2J")} {
				f.Add(status, kind, "7", "nginx", body)
			}
		}
	}
	where := address{name: "http://collector:4318", hidden: hiding("s3cret"), tls: new(handshakes)}
	f.Fuzz(func(t *testing.T, status int, kind, after, server string, body []byte) {
		const spans = 3
		a := &httpAnswer{status: status, header: http.Header{"Content-Type": {kind}, "Retry-After": {after}, "Server": {server}, "Location": {server}}, body: body}
		v := a.judge(where, spans)
		checkVerdict(t, v, spans)
		if status/100 != 2 && v.err == nil {
			t.Errorf("status %d is a success", status)
		}
		if mediaType(a.header) == "text/html" && len(body) > 0 && v.otlp {
			t.Error("a web page is OTLP")
		}
	})
}

// FuzzGRPCAnswer judges statuses of any kind, from a server or from the client.
func FuzzGRPCAnswer(f *testing.F) {
	for _, message := range []string{"", "grpc: received message larger than max (5 vs. 4)", "unexpected HTTP status code received from server: 413 (s3cret); transport: x",
		"connection error: desc = \"error reading server preface: EOF\"", "compression gzip", "x509: s3cret \x1b\xff", remoteAlert + "s3cret certificate \x1b\xff"} {
		f.Add(uint32(3), message, []byte{}, true, int64(0))
		f.Add(uint32(14), message, []byte{10, 2, 'x', 'y'}, false, int64(-1))
		f.Add(uint32(0), message, []byte{}, true, int64(1)<<40)
	}
	where := address{name: "http://collector:4317", hidden: hiding("s3cret"), tls: new(handshakes)}
	f.Fuzz(func(t *testing.T, code uint32, message string, details []byte, spoken bool, rejected int64) {
		const spans = 3
		p := &spb.Status{Code: int32(code), Message: message}
		_ = proto.UnmarshalOptions{Merge: true}.Unmarshal(details, p)
		p.Code = int32(code)
		var header metadata.MD
		if spoken {
			header = metadata.Pairs("content-type", "application/grpc")
		}
		partly := &coltracepb.ExportTracePartialSuccess{RejectedSpans: rejected, ErrorMessage: message}
		v := newGRPCAnswer(status.ErrorProto(p), partly, header, nil).judge(where, spans)
		checkVerdict(t, v, spans)
		if code != 0 && v.err == nil {
			t.Errorf("code %d is a success", code)
		}
	})
}

// FuzzRetryAfter reads the header of any server.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"7", "-1", "99999999999999999999", "Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d := retryAfter(http.Header{"Retry-After": {s}}); d < 0 || d > 1<<31*time.Second && !strings.Contains(s, " ") {
			t.Errorf("%q: %v", s, d)
		}
	})
}

func hiding(values ...string) *secrets {
	s := new(secrets)
	for _, v := range values {
		s.add(v)
	}
	return s
}
