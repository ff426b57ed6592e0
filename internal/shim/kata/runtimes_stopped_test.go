package kata

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
)

// posters post to the endpoint without a pause, as runtimes under load: each over one
// connection, without a limit of time.
type posters struct {
	answered, failed atomic.Int64
	longest          atomic.Int64 // wait for an answer or an error, in ns
	stop             func()
}

func startPosters(t *testing.T, url string, body []byte) *posters {
	p := new(posters)
	over := make(chan struct{})
	var posting sync.WaitGroup
	for range 4 {
		posting.Go(func() {
			transport := new(http.Transport)
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			for {
				select {
				case <-over:
					return
				default:
				}
				began := time.Now()
				answer, err := client.Post(url, "application/x-thrift", bytes.NewReader(body))
				took := int64(time.Since(began))
				for was := p.longest.Load(); took > was && !p.longest.CompareAndSwap(was, took); was = p.longest.Load() {
				}
				if err != nil {
					p.failed.Add(1)
					time.Sleep(time.Millisecond)
					continue
				}
				answer.Body.Close()
				p.answered.Add(1)
			}
		})
	}
	p.stop = sync.OnceFunc(func() {
		close(over)
		posting.Wait()
	})
	t.Cleanup(p.stop)
	return p
}

// TestEndpointStopped: runtimes wait for the endpoint with each span, without a limit. One
// that is stopped, or killed, is replaced before anybody notices much; what it had is
// counted as lost.
func TestEndpointStopped(t *testing.T) {
	cfg, inner := runtimeHost(t)
	var text bytes.Buffer
	var writing sync.Mutex
	log := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		writing.Lock()
		defer writing.Unlock()
		return text.Write(b)
	}), nil))
	o := newObserver(t, cfg, inner, log)
	t.Cleanup(func() {
		for _, pid := range endpoints(cfg) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		shimtest.Eventually(t, "the endpoint ends", func() bool { return len(endpoints(cfg)) == 0 })
	})
	sandbox := newPod(t, cfg.Trace)
	o.Start(sandbox, sandbox.state)

	url := "http://" + cfg.Jaeger.Listen + "/api/traces"
	load := startPosters(t, url, captured.Posts(t, captured.Rust)[0])
	for i, fault := range []unix.Signal{unix.SIGSTOP, unix.SIGKILL} {
		var before int
		shimtest.Eventually(t, "posts are answered", func() bool {
			now := endpoints(cfg) // which may miss one while a thread ends
			if len(now) == 1 {
				before = now[0]
			}
			return load.answered.Load() > 50 && len(now) == 1
		})
		load.longest.Store(0)
		began := time.Now()
		if err := unix.Kill(before, fault); err != nil {
			t.Fatal(err)
		}
		shimtest.Eventually(t, "another endpoint is there", func() bool {
			now := endpoints(cfg)
			return len(now) == 1 && now[0] != before
		})
		load.answered.Store(0)
		shimtest.Eventually(t, "it answers", func() bool { return load.answered.Load() > 50 })
		t.Logf("%v: posts are answered again after %v, the longest wait was %v; %d have failed so far", fault, time.Since(began), time.Duration(load.longest.Load()), load.failed.Load())
		if longest := time.Duration(load.longest.Load()); longest > 30*time.Second { // a second, on a machine with nothing else to do
			t.Errorf("%d: a post waited for %v", i, longest)
		}
	}
	load.stop()
	o.Close()
	o.Telemetry.Close(log, 0)

	lost := make(map[string]int)
	if _, err := journal.Scan(cfg.Journal.Dir, func(rec journal.Record) error {
		if rec.Kind != journal.KindDrops {
			return nil
		}
		drops, err := rec.Drops()
		for reason, n := range drops {
			lost[reason] += n
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("lost %v", lost)
	// All four posted when it was stopped, and waited.
	if n := lost["runtime: endpoint_stopped"]; n < 1 || int64(n) > load.failed.Load() {
		t.Errorf("%d posts are counted that were not read, %d failed", n, load.failed.Load())
	}
	writing.Lock()
	defer writing.Unlock()
	if !strings.Contains(text.String(), "is stopped: it is replaced") {
		t.Errorf("the log says nothing:\n%s", text.String())
	}
	reliability.Row(t, reliability.Fault{
		Area: "Hangs", Fault: "the endpoint for runtimes' spans is stopped while runtimes post",
		Pod: "one wait of a second at most", Lost: "a span for each post that it had not read, as `runtime: endpoint_stopped`, and what it had, as `runtime: endpoint_gone`",
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
