package agent

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// BenchmarkCapture takes a capture from an io.Reader to the OTLP bytes of its spans, as the
// forwarder does: one buffer of ScopeSpans.spans per batch.
func BenchmarkCapture(b *testing.B) {
	for _, name := range []string{capture328, capture410, capture410rs} {
		frames := testdata(b, name+".frames")
		b.Run(name, func(b *testing.B) {
			in := bytes.NewReader(frames)
			benchmark(b, frames, func() io.Reader { in.Reset(frames); return in })
		})
	}
}

// BenchmarkSocket does the same over a Unix socket from another goroutine.
func BenchmarkSocket(b *testing.B) {
	for _, name := range []string{capture328, capture410, capture410rs} {
		frames := testdata(b, name+".frames")
		b.Run(name, func(b *testing.B) {
			conn := endless(b, frames)
			benchmark(b, frames, func() io.Reader { return io.LimitReader(conn, int64(len(frames))) })
		})
	}
}

func benchmark(b *testing.B, frames []byte, open func() io.Reader) {
	b.SetBytes(int64(len(frames)))
	b.ReportAllocs()
	d := NewDecoder(Options{})
	var s span.Span
	var batch []byte
	spans := 0
	for b.Loop() {
		r := NewReader(open(), Options{})
		batch = batch[:0]
		for {
			p, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			if err := d.Decode(p, &s); err != nil {
				b.Fatal(err)
			}
			batch = s.AppendOTLP(batch)
			spans++
		}
	}
	b.ReportMetric(float64(spans)/b.Elapsed().Seconds(), "spans/s")
	b.ReportMetric(float64(len(batch))/float64(spans/b.N), "B/span")
}

// endless returns a connection that repeats frames forever.
func endless(b *testing.B, frames []byte) net.Conn {
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := peer.Write(frames); err != nil {
				return
			}
		}
	}()
	b.Cleanup(func() {
		conn.Close()
		peer.Close()
		<-done
		_ = os.Remove(l.Addr().String())
	})
	return conn
}
