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
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// taken counts the spans that a target has got, by number.
type taken struct {
	url   string
	mu    sync.Mutex
	spans map[uint64]int
}

func newTaken(t *testing.T) *taken {
	k := &taken{spans: make(map[uint64]int)}
	server := httptest.NewServer(k)
	t.Cleanup(server.Close)
	k.url = server.URL
	return k
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

func (k *taken) times(n uint64) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.spans[n]
}

// collecting is a host on which shimtrace collect runs and spans are recorded.
type collecting struct {
	*testing.T
	dir, file string
	journal   *journal.Journal
	log       *testkit.Output
	mistakes  atomic.Int64
	end       func()

	mu   sync.Mutex
	last uint64
}

// startHost starts one with a configuration's text.
func startHost(t *testing.T, text string) *collecting {
	t.Helper()
	dir := t.TempDir()
	h := &collecting{T: t, dir: dir, file: filepath.Join(dir, "config.toml"), log: new(testkit.Output)}
	h.edit(text)
	h.run()
	t.Cleanup(func() {
		h.end()
		h.journal.Close()
	})
	return h
}

// run runs shimtrace collect until h.end is called.
func (h *collecting) run() {
	h.Helper()
	getenv := func(name string) string {
		if name == config.PathEnv {
			return h.file
		}
		return ""
	}
	load := func() ([]config.Config, error) {
		all, r := config.Journals(getenv)
		if r.Err() != nil {
			h.mistakes.Add(1)
		}
		return all, r.Err()
	}
	reload := Reloader(getenv, load)
	all, err := load()
	if err != nil {
		h.Fatal(err)
	}
	if h.journal == nil {
		h.journal = journal.New(all[0].Journal.Dir, export.JournalOptions(all[0]))
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		say := console.New(h.log)
		defer say.Close()
		if err := Run(ctx, Options{Configurations: all, Reload: reload}, say); err != nil {
			h.Errorf("collect: %v", err)
		}
	})
	h.end = func() {
		stop()
		running.Wait()
	}
}

// edit replaces the configuration.
func (h *collecting) edit(text string) {
	h.Helper()
	next := h.file + ".next"
	text = fmt.Sprintf("[journal]\ndir = %q\n[relay]\nstate_dir = %q\n%s\n", filepath.Join(h.dir, "journal"), filepath.Join(h.dir, "state"), text)
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		h.Fatal(err)
	}
	if err := os.Rename(next, h.file); err != nil {
		h.Fatal(err)
	}
}

// record records a span and returns its number.
func (h *collecting) record() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	id := binary.BigEndian.AppendUint64(nil, h.last)
	span := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), append(id, id...))
	span = protowire.AppendBytes(protowire.AppendTag(span, 2, protowire.BytesType), id)
	span = protowire.AppendString(protowire.AppendTag(span, 5, protowire.BytesType), "span")
	span = protowire.AppendFixed64(protowire.AppendTag(span, 7, protowire.Fixed64Type), 1)
	span = protowire.AppendFixed64(protowire.AppendTag(span, 8, protowire.Fixed64Type), 2)
	field := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), span)
	if err := h.journal.AppendSpans(nil, "", field, 1); err != nil {
		h.Error(err)
	}
	return h.last
}

// load records spans until the returned function is called. It is never far ahead of what has
// arrived: an upload of all that a busy machine has not shipped could take longer than it may,
// and would be repeated.
func (h *collecting) load(arrived func() int) (stop func()) {
	ctx, over := context.WithCancel(context.Background())
	var recording sync.WaitGroup
	recording.Go(func() {
		for last := 0; ctx.Err() == nil; {
			if last-arrived() < 100 {
				last = int(h.record())
			}
			time.Sleep(time.Millisecond)
		}
	})
	return func() {
		over()
		recording.Wait()
	}
}

// complete waits until the targets together have every span, and fails if one has come
// twice.
func (h *collecting) complete(what string, all ...*taken) {
	h.Helper()
	times := func(n uint64) (sum int) {
		for _, k := range all {
			sum += k.times(n)
		}
		return sum
	}
	eventually(h.T, what+" to have all spans", func() bool {
		for n := uint64(1); n <= h.last; n++ {
			if times(n) == 0 {
				return false
			}
		}
		return true
	})
	for n := uint64(1); n <= h.last; n++ {
		if got := times(n); got != 1 {
			h.Errorf("%s: span %d came %d times", what, n, got)
		}
	}
}

var eventually = testkit.Until
