package receiver

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestSinkIsSlow: a post waits for its Sink for a bounded time, then its program is to
// send it again. Until the Sink is done with it, it takes up room.
func TestSinkIsSlow(t *testing.T) {
	c := &Counters{Losses: new(losses.Tally)}
	sink := taken{hold: make(chan struct{})}
	r, at := serving(t, sink.take, Options{TakeTimeout: 10 * time.Millisecond, MaxBody: 64 << 10, RoomBytes: 64 << 10, Counters: c})
	full := false
	invalid := spanOf(1)
	invalid.TraceId = nil // counted when the post is taken at last
	for range 100 {
		answer, _ := send(t, at, typeProtobuf, "", body(t, spansOf("a", append(some(20), invalid)...)))
		if answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" {
			t.Fatal(answer.Status)
		}
		full = full || r.room.Free() < 8<<10
	}
	if !full || len(sink.posts) > 30 {
		t.Errorf("%d posts wait, %d bytes are free", len(sink.posts), r.room.Free())
	}
	close(sink.hold)
	if n := c.Postponed.Load(); n != 100 || len(c.Losses.Counts()) != 0 {
		t.Errorf("%d are postponed, %v lost", n, c.Losses.Counts())
	}
}

// TestPace: a connection that floods is held back, and others get through.
func TestPace(t *testing.T) {
	c := &Counters{Losses: new(losses.Tally)}
	var sink taken
	const rate = 256 << 10
	began := time.Now()
	_, at := serving(t, sink.take, Options{BytesPerSecond: rate, MaxBody: rate, Counters: c})
	flooder, other := collectorpb.NewTraceServiceClient(dial(t, at)), collectorpb.NewTraceServiceClient(dial(t, at))
	request := &collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{spansOf("a", some(300)...)}}
	refused, size := 0, proto.Size(request)
	for refused < 15 {
		_, err := flooder.Export(t.Context(), request)
		if err == nil {
			// One connection has a quarter of all; the last post may be charged beyond that.
			share := rate / connectionPart * (burstTime + int(time.Since(began)/time.Second) + 1)
			if n := len(sink.posts); n > share/size+1 {
				t.Fatalf("%d posts of %d bytes were taken of the flood, which may have %d bytes", n, size, share)
			}
			continue
		}
		if status.Code(err) != codes.Unavailable || !strings.Contains(status.Convert(err).Message(), "bytes_per_second") {
			t.Fatal(err)
		}
		refused++
	}
	if len(sink.posts) == 0 {
		t.Error("nothing was taken of the flood")
	}
	if _, err := other.Export(t.Context(), request); err != nil {
		t.Error("another program is held back:", err)
	}
	if n := len(c.Losses.Counts()); n != 0 || c.Postponed.Load() != 15 {
		t.Error(c.Losses.Counts(), c.Postponed.Load())
	}
}

// TestManyFloods: many connections together are held back, too.
func TestManyFloods(t *testing.T) {
	p := newPace(1<<20, 1<<20)
	for range 20 {
		if c := p.part(); c.left() {
			c.spend(1 << 20)
		}
	}
	if p.left() {
		t.Error("20 connections may send without end")
	}
	if c := p.part(); c.left() {
		t.Error("a new connection starts anew")
	}
}

// readTimeout is long enough for a post of a test on a busy machine, whose headers get a quarter
// of it, and short enough to wait for.
const readTimeout = 4 * time.Second

// TestSlowClients: posts that do not arrive keep nobody from being served, and are
// answered in the end.
func TestSlowClients(t *testing.T) {
	c := &Counters{Losses: new(losses.Tally)}
	var sink taken
	_, at := serving(t, sink.take, Options{ReadTimeout: readTimeout, MaxConnections: 20, Counters: c})
	var open []net.Conn
	for i := range 18 {
		conn, err := net.Dial("tcp", at)
		check(t, err)
		defer conn.Close()
		switch i % 3 {
		case 0:
			_, _ = io.WriteString(conn, "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 8000000\r\n\r\nabc")
		case 1:
			_, _ = io.WriteString(conn, "POST /v1/traces HTT")
		case 2:
			_, _ = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		}
		open = append(open, conn)
	}
	if answer, _ := send(t, at, typeProtobuf, "", body(t, spansOf("a", some(1)...))); answer.StatusCode != 200 {
		t.Error(answer.Status)
	}
	for i, conn := range open {
		if i%3 == 2 {
			continue // an idle connection of HTTP/2 may stay
		}
		check(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		if _, err := io.ReadAll(conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("connection %d is kept", i)
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// TestTooManyConnections: those beyond the limit are closed at once.
func TestTooManyConnections(t *testing.T) {
	c := &Counters{Losses: new(losses.Tally)}
	var sink taken
	_, at := serving(t, sink.take, Options{MaxConnections: 2, Counters: c})
	var open []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", at)
		check(t, err)
		defer conn.Close()
		open = append(open, conn)
	}
	if _, err := open[2].Read(make([]byte, 1)); err == nil {
		t.Error("a third connection is served")
	}
	if n := c.TurnedAway.Load(); n != 1 {
		t.Errorf("%d were turned away", n)
	}
}
