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

// way is one from a client to an inner shim, which nobody else calls but the client directly:
// processes that had more to do would answer sooner.
type way struct {
	name, method string
	*pod
}

// ways are those that are compared: State is a quiet call, Pids is none. A pod is untraced that
// the sampler has not drawn, and off until tracing on demand is switched on for it.
func (h *host) ways(b *testing.B) []way {
	dynamic := h.configure("dynamic.toml", "[trace]\nmode = \"dynamic\"\n")
	return []way{
		{"copied", "Pids", h.startCopied(b, "box-copied")},
		{"off", "Pids", h.start("box-off", "SHIMTRACE_CONFIG="+dynamic)},
		{"untraced", "Pids", h.start("box-untraced", "OTEL_TRACES_SAMPLER=always_off")},
		{"quiet", "State", h.start("box-quiet")},
		{"traced", "Pids", h.start("box-traced")},
	}
}

// startCopied starts a container's shim, whose calls then go through a relay that only copies.
func (h *host) startCopied(b *testing.B, id string) *pod {
	p := h.start(id)
	copier := filepath.Join(h.dir, "copy")
	build(b, "./memory/copy", copier)
	cmd := exec.Command(copier, copier+".sock", filepath.Join(h.dir, "bundles", id, idleshim.Socket))
	cmd.Stderr = b.Output()
	check(b, cmd.Start())
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	await(b, "the relay that copies listens", func() bool { return exists(cmd.Process.Pid) && dials(copier+".sock") })
	p.calls.Close()
	p.calls = dial(b, copier+".sock")
	return p
}

// call calls by one of the way's clients.
func (w way) call(b *testing.B, by *ttrpc.Client) {
	if err := by.Call(context.Background(), "containerd.task.v2.Task", w.method, request(w.id, ""), new(emptypb.Empty)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCalls is what a caller waits for an answer, when the shim, the relay and the caller
// are processes of their own, beside what it waits directly. They take turns in blocks.
func BenchmarkCalls(b *testing.B) {
	const block = 50
	ways := newHost(b).ways(b)
	took := make([]struct{ direct, relayed []time.Duration }, len(ways))
	some := func(w way, by *ttrpc.Client, n int, took *[]time.Duration) {
		for range n {
			start := time.Now()
			w.call(b, by)
			*took = append(*took, time.Since(start))
		}
	}
	for _, w := range ways {
		var warm []time.Duration
		some(w, w.direct, block, &warm)
		some(w, w.calls, block, &warm)
	}
	b.ResetTimer()
	for left := b.N; left > 0; left -= block {
		for i, w := range ways {
			some(w, w.direct, min(left, block), &took[i].direct)
			some(w, w.calls, min(left, block), &took[i].relayed)
		}
	}
	for i, w := range ways {
		slices.Sort(took[i].direct)
		slices.Sort(took[i].relayed)
		for _, percent := range []int{50, 99} {
			at := func(took []time.Duration) float64 {
				return float64(took[(len(took)-1)*percent/100].Nanoseconds()) / 1e3
			}
			if i == 0 {
				b.ReportMetric(at(took[i].direct), fmt.Sprintf("direct-p%d-µs", percent))
			}
			b.ReportMetric(at(took[i].relayed)-at(took[i].direct), fmt.Sprintf("%s-added-p%d-µs", w.name, percent))
		}
	}
	b.ReportMetric(0, "ns/op") // of a round, which says nothing
}

// BenchmarkManyCalls is how many calls a second 64 callers of one connection get through, as
// parts of what they get directly.
func BenchmarkManyCalls(b *testing.B) {
	const callers, each = 64, 20
	ways := newHost(b).ways(b)
	took := make([]struct{ direct, relayed time.Duration }, len(ways))
	all := func(w way, by *ttrpc.Client, took *time.Duration) {
		start := time.Now()
		var running sync.WaitGroup
		for range callers {
			running.Go(func() {
				for range each {
					w.call(b, by)
				}
			})
		}
		running.Wait()
		*took += time.Since(start)
	}
	n := 0
	for b.Loop() {
		n += callers * each
		for i, w := range ways {
			all(w, w.direct, &took[i].direct)
			all(w, w.calls, &took[i].relayed)
		}
	}
	b.ReportMetric(float64(n)/took[0].direct.Seconds(), "direct-calls/s")
	for i, w := range ways {
		b.ReportMetric(100*took[i].direct.Seconds()/took[i].relayed.Seconds(), w.name+"-%")
	}
	b.ReportMetric(0, "ns/op")
}
