package endpoint

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func dial(t *testing.T, e *served) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", e.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(testkit.Patience))
	return c
}

func head(length int) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", Path, typeGo, length)
}

// readTimeout is long enough for a post of a test on a busy machine, whose headers get a quarter
// of it, and short enough to wait for.
const readTimeout = 4 * time.Second

// A slow client loses its connection, and nobody else loses anything.
func TestSlowClients(t *testing.T) {
	var got sunk
	e := serve(t, got.sink, Options{ReadTimeout: readTimeout})
	body := batch("kata", plainSpan("n"))
	silent, headless, slow := dial(t, e), dial(t, e), dial(t, e)
	io.WriteString(headless, "POST /api/traces HTTP/1.1\r\nHost")
	io.WriteString(slow, head(len(body))+string(body[:10]))

	quick := client(t, 1)
	for range 20 {
		if status, _ := posted(t, quick, e.url, typeGo, body); status != http.StatusAccepted {
			t.Fatalf("a quick client got %d", status)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("a slow body got %d", resp.StatusCode)
	}
	for name, c := range map[string]net.Conn{"silent": silent, "headless": headless, "slow": slow} {
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("%s: not hung up on: %v", name, err)
		}
	}
	if n := e.counters.Losses.Of(losses.CutShortPost); n != 1 {
		t.Errorf("%d cut short", n)
	}
	e.flush(t)
	if n := len(got.deliveries()); n != 20 {
		t.Errorf("%d deliveries", n)
	}
}

// The same over HTTP/2, where a slow stream shares its connection with others.
func TestSlowStream(t *testing.T) {
	e := serve(t, new(sunk).sink, Options{ReadTimeout: readTimeout})
	c := client(t, 2)
	reader, writer := io.Pipe()
	defer writer.Close()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url, reader)
	req.Header.Set("Content-Type", typeRust)
	ended := make(chan error, 1)
	go func() {
		resp, err := c.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusRequestTimeout {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
		}
		ended <- err
	}()
	writer.Write([]byte{1})
	for range 5 {
		if status, _ := posted(t, c, e.url, typeRust, batch("kata", plainSpan("n"))); status != http.StatusAccepted {
			t.Fatalf("a quick stream got %d", status)
		}
	}
	<-ended // 408, or a reset stream: the client may not have read the answer yet
	eventually(t, "the count", func() bool { return e.counters.Losses.Of(losses.CutShortPost) == 1 })
}

// A client that hangs up in the middle of a body.
func TestGoneMidway(t *testing.T) {
	e := serve(t, new(sunk).sink, Options{})
	c := dial(t, e)
	io.WriteString(c, head(1000)+"abc")
	c.Close()
	eventually(t, "the count", func() bool { return e.counters.Losses.Of(losses.CutShortPost) == 1 })
}

// Memory is taken by bytes that have arrived: announced lengths and many clients at once
// keep nobody from posting.
func TestMemoryIsForWhatArrived(t *testing.T) {
	const limit = 1 << 20
	var got sunk
	e := serve(t, got.sink, Options{MaxBody: limit, QueuedBytes: 2 * limit})
	for range 20 {
		io.WriteString(dial(t, e), head(limit)+"x")
	}
	c := client(t, 1)
	body := batch("kata", plainSpan("n"))
	if status, text := posted(t, c, e.url, typeGo, body); status != http.StatusAccepted {
		t.Fatalf("beside claims: %d %s", status, text)
	}
	for range 4 {
		io.WriteString(dial(t, e), head(limit)+strings.Repeat("x", limit-10))
	}
	eventually(t, "no room", func() bool { return e.counters.Losses.Of(losses.BusyPost) > 0 })
	if room := e.queue.room.Free(); room < 0 {
		t.Errorf("room for %d bytes", room)
	}
}

func TestMostConnections(t *testing.T) {
	e := serve(t, new(sunk).sink, Options{MaxConnections: 3})
	var open []net.Conn
	for range 3 {
		open = append(open, dial(t, e))
	}
	more := dial(t, e)
	if n, err := more.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("a connection beyond the limit is read from")
	}
	eventually(t, "the count", func() bool { return e.counters.TurnedAway.Load() == 1 })
	open[0].Close()
	body := batch("kata", plainSpan("n"))
	eventually(t, "room for another", func() bool {
		c := dial(t, e)
		defer c.Close()
		io.WriteString(c, head(len(body))+string(body))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusAccepted
	})
}

// A runtime that posts nothing for longer than a request may take keeps its connection:
// its next post does not meet a closing one.
func TestIdleConnectionsStay(t *testing.T) {
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprint("HTTP/", version), func(t *testing.T) {
			t.Parallel()
			e := serve(t, new(sunk).sink, Options{ReadTimeout: readTimeout})
			c := client(t, version)
			for n := range 2 {
				if n > 0 {
					time.Sleep(readTimeout + readTimeout/4)
				}
				if status, _ := posted(t, c, e.url, typeGo, batch("kata", plainSpan("n"))); status != http.StatusAccepted {
					t.Fatal(status)
				}
			}
			if n := e.accepted.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}
