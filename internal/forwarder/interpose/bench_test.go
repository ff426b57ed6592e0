package interpose

import (
	"io"
	"net"
	"testing"

	"github.com/shimtrace/shimtrace/middleware"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// benchPath has a VMM at a path, as it is or with its place taken.
func benchPath(b *testing.B, interposed bool, o Options) (string, *vmm) {
	pattern, v := vmmAt(b)
	if interposed {
		if o.Relay == nil {
			o.Relay = middleware.NewRelay().Connect
		}
		interposer(b, pattern, o)
		taken(b, v.path)
	}
	return v.path, v
}

// BenchmarkAttempt measures one of a runtime's attempts before the agent listens.
func BenchmarkAttempt(b *testing.B) {
	for name, interposed := range map[string]bool{"direct": false, "interposed": true} {
		b.Run(name, func(b *testing.B) {
			path, v := benchPath(b, interposed, Options{})
			v.agent.Store(false)
			b.ReportAllocs()
			for b.Loop() {
				conn, err := net.Dial("unix", path)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.WriteString(conn, "CONNECT 1024\n"); err != nil {
					b.Fatal(err)
				}
				if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
					b.Fatalf("%q, %v", got, err)
				}
				conn.Close()
			}
		})
	}
}

// BenchmarkThroughput measures a stream to the VMM's end: direct, passed to another port,
// and relayed to the agent's as frames.
func BenchmarkThroughput(b *testing.B) {
	for _, c := range []struct {
		name       string
		interposed bool
		ask        string
	}{
		{"direct", false, "CONNECT 1024\n"},
		{"passed", true, "CONNECT 1025\n"},
		{"relayed", true, "CONNECT 1024\n"},
	} {
		for size, chunk := range map[string][]byte{"64KiB": make([]byte, 64<<10), "4KiB": make([]byte, 4<<10)} {
			b.Run(c.name+"/"+size, func(b *testing.B) {
				path, v := benchPath(b, c.interposed, Options{})
				// Data frames, as of a stream; nobody reads their payload.
				wire.Header{Length: uint32(len(chunk) - wire.HeaderLen), Stream: 1, Type: wire.TypeData}.Append(chunk[:0])
				v.sink.Store(true)
				conn := dial(b, path)
				send(b, conn, c.ask)
				receive(b, conn, "OK 1073741824\n")
				b.SetBytes(int64(len(chunk)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := conn.Write(chunk); err != nil {
						b.Fatal(err)
					}
				}
				// Up to here the pipe may still be full; the end is when it is empty.
				_ = conn.CloseWrite()
				if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
					b.Fatal(err)
				}
				conn.Close()
			})
		}
	}
}

// BenchmarkRoundTrip measures a small frame and its echo.
func BenchmarkRoundTrip(b *testing.B) {
	for _, c := range []struct {
		name       string
		interposed bool
		ask        string
	}{
		{"direct", false, "CONNECT 1024\n"},
		{"passed", true, "CONNECT 1025\n"},
		{"relayed", true, "CONNECT 1024\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			path, _ := benchPath(b, c.interposed, Options{})
			conn := dial(b, path)
			send(b, conn, c.ask)
			receive(b, conn, "OK 1073741824\n")
			frame := append(wire.Header{Length: 90, Stream: 1, Type: wire.TypeData}.Append(nil), make([]byte, 90)...)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Write(frame); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, frame); err != nil {
					b.Fatal(err)
				}
			}
			conn.Close()
		})
	}
}
