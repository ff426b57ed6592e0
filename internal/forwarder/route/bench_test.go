package route

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/host"
)

// BenchmarkTake measures a span in its own post, as the Go runtime sends them, from
// decoded to the relay, socket included.
func BenchmarkTake(b *testing.B) {
	dir := b.TempDir()
	r := NewRouter(RouterOptions{QueuedBytes: 1 << 30})
	l, err := Listen(dir)
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan struct{})
	ctx, stop := context.WithCancel(b.Context())
	go func() {
		defer close(served)
		r.Serve(ctx, l)
	}()
	var got atomic.Int64
	link := NewLink(LinkOptions{Dir: dir, Sandbox: "aaaaaaaa", Ensure: func() {}}, func(*span.Span) { got.Add(1) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		link.Serve(b.Context())
	}()
	post := of("aaaaaaaa", spans(1, "GetPodSandboxPids"))
	post[0].AddString("source", "runtime")
	post[0].AddString("subsystem", "container")
	r.Take(nowhere, "kata", post)
	for got.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	want := int64(1)
	b.ReportAllocs()
	for b.Loop() {
		r.Take(nowhere, "kata", post)
		want++
	}
	for got.Load() < want {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	link.Leave(b.Context())
	<-done
	stop()
	<-served
	r.Close(b.Context())
}

// BenchmarkOpened measures a new connection: finding its socket among all of the host's,
// and its process among those of many pods.
func BenchmarkOpened(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	const connections = 1000
	var ends [connections]netip.AddrPort
	for i := range ends {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		ends[i] = conn.LocalAddr().(*net.TCPAddr).AddrPort()
	}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	diag := new(diagnoser)
	defer diag.close()
	for name, diagnose := range map[string]func(from, to netip.AddrPort) (socket, error){"socket": diag.ask, "socket without inet_diag": noDiag} {
		sockets := sockets{proc: "/proc", diagnose: diagnose, warn: func(error) {}}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if f := sockets.find(ends[i%connections:][:1], to)[0]; f.err != nil {
					b.Fatal(f.err)
				}
			}
		})
	}
	proc := host.Proc("/proc")
	s, err := diag.ask(ends[connections/2], to)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("process", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !proc.HasSocket(os.Getpid(), s.inode) {
				b.Fatal("it is ours")
			}
		}
	})
}
