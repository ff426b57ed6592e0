package collect

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
)

// taken counts the spans that a target has got, by number.
type taken struct {
	mu    sync.Mutex
	spans map[uint64]int
}

func (k *taken) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	text, _ := io.ReadAll(body)
	var req coltracepb.ExportTraceServiceRequest
	if proto.Unmarshal(text, &req) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				k.spans[binary.BigEndian.Uint64(s.SpanId)]++
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (k *taken) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.spans)
}

func (k *taken) has(n uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.spans[n] > 0
}

// TestTargetChanges changes the target forty times while spans are recorded, with bad
// edits between. What is recorded once a change is in effect goes to the new target, no
// span is missing, and none comes twice.
func TestTargetChanges(t *testing.T) {
	targets := [2]*taken{{spans: make(map[uint64]int)}, {spans: make(map[uint64]int)}}
	var urls [2]string
	for i, k := range targets {
		server := httptest.NewServer(k)
		t.Cleanup(server.Close)
		urls[i] = server.URL
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	edit := func(text string) {
		t.Helper()
		next := file + ".next"
		text = fmt.Sprintf("[journal]\ndir = %q\n[relay]\nstate_dir = %q\n[export]\n%s\n", filepath.Join(dir, "journal"), filepath.Join(dir, "state"), text)
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
	}
	edit(fmt.Sprintf("endpoint = %q", urls[0]))
	getenv := func(name string) string {
		if name == config.PathEnv {
			return file
		}
		return ""
	}
	var mistakes atomic.Int64
	load := func() ([]config.Config, error) {
		all, r := config.Journals(getenv)
		if r.Err() != nil {
			mistakes.Add(1)
		}
		return all, r.Err()
	}
	reload := Reloader(getenv, load)
	all, err := load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		say := console.New(io.Discard)
		if err := Run(ctx, Options{Configurations: all, Reload: reload}, say); err != nil {
			t.Errorf("collect: %v", err)
		}
	})
	defer running.Wait()
	defer stop()

	j := journal.New(all[0].Journal.Dir, export.JournalOptions(all[0]))
	defer j.Close()
	var numbers sync.Mutex
	last := uint64(0)
	record := func() uint64 {
		numbers.Lock()
		defer numbers.Unlock()
		last++
		id := binary.BigEndian.AppendUint64(nil, last)
		err := j.UploadTraces(t.Context(), []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{
			{TraceId: append(id, id...), SpanId: id, Name: "span", StartTimeUnixNano: 1, EndTimeUnixNano: 2},
		}}}}})
		if err != nil {
			t.Error(err)
		}
		return last
	}
	recorded, over := context.WithCancel(t.Context())
	var recording sync.WaitGroup
	recording.Go(func() {
		for recorded.Err() == nil {
			record()
			time.Sleep(time.Millisecond)
		}
	})
	for n := 1; n <= 40; n++ {
		now, before := targets[n%2], targets[(n-1)%2]
		if n%10 == 0 {
			edit("endpoint = 7")
			was := before.count()
			eventually(t, "the bad edit to be seen", func() bool { return mistakes.Load() == int64(n/10) })
			eventually(t, "the old target to get spans", func() bool { return before.count() > was })
		}
		edit(fmt.Sprintf("endpoint = %q", urls[n%2]))
		had := now.count()
		eventually(t, "the new target to get spans", func() bool { return now.count() > had })
		next := record()
		eventually(t, "a span recorded afterwards", func() bool { return now.has(next) || before.has(next) })
		if before.has(next) {
			t.Fatalf("change %d: a span recorded afterwards went to the old target", n)
		}
	}
	over()
	recording.Wait()
	eventually(t, "all spans", func() bool {
		for n := uint64(1); n <= last; n++ {
			if !targets[0].has(n) && !targets[1].has(n) {
				return false
			}
		}
		return true
	})
	for n := uint64(1); n <= last; n++ {
		if got := targets[0].spans[n] + targets[1].spans[n]; got != 1 {
			t.Errorf("span %d was delivered %d times", n, got)
		}
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
