package memory

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shimtrace/shimtrace/integration/idleshim"
)

// way is one from a client to the inner shim.
type way struct {
	name, method string
	calls        *ttrpc.Client
}

// ways are those that are compared: State is a quiet call, Pids is none.
func (h *host) ways(b *testing.B) []way {
	h.start("box")
	inner := filepath.Join(h.dir, "bundles", "box", idleshim.Socket)
	copier := filepath.Join(h.dir, "copy")
	build(b, "./memory/copy", copier)
	cmd := exec.Command(copier, copier+".sock", inner)
	cmd.Stderr = b.Output()
	check(b, cmd.Start())
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	await(b, "the relay that copies listens", func() bool { return exists(cmd.Process.Pid) && dials(copier+".sock") })
	p := h.pods[0]
	return []way{
		{"direct", "Pids", p.direct}, {"copied", "Pids", dial(b, copier+".sock")},
		{"quiet", "State", p.calls}, {"traced", "Pids", p.calls},
	}
}

func (w way) call(b *testing.B) {
	if err := w.calls.Call(context.Background(), "containerd.task.v2.Task", w.method, request("box", ""), new(emptypb.Empty)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCalls is what a caller waits for an answer, when the shim, the relay and the caller
// are processes of their own. The ways take turns in blocks.
func BenchmarkCalls(b *testing.B) {
	const block = 50
	ways := newHost(b).ways(b)
	took := make([][]time.Duration, len(ways))
	for _, w := range ways {
		for range block {
			w.call(b) // warm
		}
	}
	b.ResetTimer()
	for left := b.N; left > 0; left -= block {
		for i, w := range ways {
			for range min(left, block) {
				start := time.Now()
				w.call(b)
				took[i] = append(took[i], time.Since(start))
			}
		}
	}
	for _, percent := range []int{50, 99} {
		at := func(i int) float64 {
			slices.Sort(took[i])
			return float64(took[i][(len(took[i])-1)*percent/100].Nanoseconds()) / 1e3
		}
		b.ReportMetric(at(0), fmt.Sprintf("direct-p%d-µs", percent))
		for i, w := range ways[1:] {
			b.ReportMetric(at(i+1)-at(0), fmt.Sprintf("%s-added-p%d-µs", w.name, percent))
		}
	}
	b.ReportMetric(0, "ns/op") // of a round, which says nothing
}

// BenchmarkManyCalls is how many calls a second 64 callers of one connection get through, as
// parts of what they get directly.
func BenchmarkManyCalls(b *testing.B) {
	const callers, each = 64, 20
	ways := newHost(b).ways(b)
	took := make([]time.Duration, len(ways))
	n := 0
	for b.Loop() {
		n += callers * each
		for i, w := range ways {
			start := time.Now()
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for range each {
						w.call(b)
					}
				})
			}
			all.Wait()
			took[i] += time.Since(start)
		}
	}
	b.ReportMetric(float64(n)/took[0].Seconds(), "direct-calls/s")
	for i, w := range ways[1:] {
		b.ReportMetric(100*took[0].Seconds()/took[i+1].Seconds(), w.name+"-%")
	}
	b.ReportMetric(0, "ns/op")
}
