package middleware_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/exporttest"
	"github.com/shimtrace/shimtrace/middleware"
)

// The ways from a client to one server that are compared. Each benchmark takes
// them by turns, so that whatever else the machine does meets all of them.
var benchWays = []string{"direct", "copied", "untraced", "off", "quiet", "traced", "handover"}

// benchClients returns a client for each way.
func benchClients(b *testing.B) map[string]*ttrpc.Client {
	addr := server(b)
	untraced, _ := relay(b, addr)
	// As in a shim: spans are encoded, here into nothing.
	provider := export.NewTracerProvider(config.Default().Trace, new(exporttest.Nowhere))
	traced, _ := relay(b, addr, middleware.WithTracerProvider(provider), propagators("tracecontext", "baggage"))
	handover, _ := relay(b, addr, middleware.WithTracerProvider(provider), propagators("tracecontext", "baggage"), middleware.WithHandover(middleware.Handover{Begun: copies}))
	off, _ := relay(b, addr, middleware.WithTracerProvider(provider), propagators("tracecontext", "baggage"), middleware.WithSwitch(new(middleware.Switch)))
	quiet, _ := relay(b, addr, middleware.WithTracerProvider(provider), propagators("tracecontext", "baggage"), middleware.WithQuiet(0, "State", "Echo"))
	return map[string]*ttrpc.Client{
		"direct": client(b, addr), "copied": client(b, copier(b, addr)), "quiet": client(b, quiet), "untraced": client(b, untraced), "off": client(b, off), "traced": client(b, traced), "handover": client(b, handover),
	}
}

var benchMetadata = ttrpc.MD{"containerd-namespace-ttrpc": {"k8s.io"}, "traceparent": carrying(callerSpan)["traceparent"]}

// copier is a relay that only copies, which is what any relay costs.
func copier(b *testing.B, addr string) string {
	l := listen(b)
	b.Cleanup(func() { l.Close() })
	pass := func(from, to net.Conn) {
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if err == nil {
				_, err = to.Write(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", addr)
			if err != nil {
				b.Error(err)
				return
			}
			go pass(client, server)
			go pass(server, client)
		}
	}()
	return l.Addr().String()
}

// getState is the call that containerd makes most.
func getState(b *testing.B, c *ttrpc.Client) {
	req := task.StateRequest{ID: "0af7651916cd43dd8448eb211c80319cb7ad6b71692033310af7651916cd43dd"}
	var answer task.StateResponse
	ctx := ttrpc.WithMetadata(context.Background(), benchMetadata)
	if err := c.Call(ctx, taskService, "State", &req, &answer); err != nil {
		b.Fatal(err)
	}
}

// report reports what of the calls by each way took how long, in microseconds,
// and what the relay adds to a direct call.
func report(b *testing.B, took map[string][]time.Duration) {
	for _, q := range []float64{50, 99} {
		at := func(way string) float64 {
			slices.Sort(took[way])
			d := took[way][min(len(took[way])-1, int(float64(len(took[way]))*q/100))]
			return float64(d.Nanoseconds()) / 1e3
		}
		b.ReportMetric(at("direct"), fmt.Sprintf("direct-p%g-µs", q))
		for _, way := range benchWays[1:] {
			b.ReportMetric(at(way)-at("direct"), fmt.Sprintf("%s-added-p%g-µs", way, q))
		}
	}
	b.ReportMetric(0, "ns/op") // of a round, which says nothing
}

// rounds calls by each way by turns, in blocks, until each had b.N calls.
func rounds(b *testing.B, clients map[string]*ttrpc.Client, f func(*testing.B, *ttrpc.Client)) {
	const block = 50
	took := map[string][]time.Duration{}
	for _, c := range clients {
		for range block {
			f(b, c) // warm
		}
	}
	b.ResetTimer()
	for left := b.N; left > 0; left -= block {
		for _, way := range benchWays {
			for range min(left, block) {
				start := time.Now()
				f(b, clients[way])
				took[way] = append(took[way], time.Since(start))
			}
		}
	}
	b.StopTimer()
	report(b, took)
}

// BenchmarkLatency is what a caller waits for a small answer.
func BenchmarkLatency(b *testing.B) {
	rounds(b, benchClients(b), getState)
}

// BenchmarkPayload is the same with a payload in both directions.
func BenchmarkPayload(b *testing.B) {
	for _, size := range []int{1 << 10, 8 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			msg := wrapperspb.Bytes(make([]byte, size))
			rounds(b, benchClients(b), func(b *testing.B, c *ttrpc.Client) {
				var answer wrapperspb.BytesValue
				if err := c.Call(context.Background(), echoService, "Echo", msg, &answer); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

// BenchmarkAllocations counts those of both ends, and of what is between.
func BenchmarkAllocations(b *testing.B) {
	clients := benchClients(b)
	for _, way := range benchWays {
		b.Run(way, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				getState(b, clients[way])
			}
		})
	}
}

// BenchmarkThroughput is how many calls per second 64 callers of one connection
// get through.
func BenchmarkThroughput(b *testing.B) {
	const callers, each = 64, 20
	clients := benchClients(b)
	took := map[string]time.Duration{}
	n := 0
	for b.Loop() {
		n += callers * each
		for _, way := range benchWays {
			start := time.Now()
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for range each {
						getState(b, clients[way])
					}
				})
			}
			wg.Wait()
			took[way] += time.Since(start)
		}
	}
	b.ReportMetric(float64(n)/took["direct"].Seconds(), "direct-calls/s")
	for _, way := range benchWays[1:] {
		b.ReportMetric(100*took["direct"].Seconds()/took[way].Seconds(), way+"-%")
	}
	b.ReportMetric(0, "ns/op")
}
