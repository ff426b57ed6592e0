package runtimetrace

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// collecting is a host whose relays have Kata's runtimes post to shimtrace collect.
type collecting struct {
	cfg config.Config
	log []string
	mu  sync.Mutex
}

func newCollecting(t *testing.T) *collecting {
	t.Helper()
	dir := t.TempDir()
	tool := exec.Command("go", "build", "-o", filepath.Join(dir, "shimtrace"), "./cmd/shimtrace")
	tool.Dir = "../.."
	if out, err := tool.CombinedOutput(); err != nil {
		t.Fatalf("build the tool: %v\n%s", err, out)
	}
	at := testkit.FreePort(t)
	file := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("[relay]\nstate_dir = %q\n[journal]\ndir = %q\n[jaeger]\nlisten = %q\n[export]\nshipper = %q\n",
		filepath.Join(dir, "state"), filepath.Join(dir, "journal"), at, filepath.Join(dir, "shimtrace"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(config.PathEnv, file)
	c := new(collecting)
	var report config.Report
	if c.cfg, report = config.Load("", os.Getenv); report.Err() != nil {
		t.Fatal(report.Err())
	}
	return c
}

// keeper returns a relay's, which has the port opened.
func (c *collecting) keeper(t *testing.T) *export.Keeper {
	k := export.NewKeeper(c.cfg, c.printf)
	at := c.cfg.Jaeger.Listen
	k.Receive(func() ([]*os.File, error) {
		l, err := route.Open(at)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		f, err := l.File()
		return []*os.File{f}, err
	}, func(answer string) bool { return !strings.Contains(answer, at) }, c.killing(t))
	t.Cleanup(func() { k.Close(0) })
	return k
}

func (c *collecting) killing(t *testing.T) func(string) func() {
	return func(string) func() {
		return route.Ending(export.CollectDir(c.cfg), []string{c.cfg.Jaeger.Listen}, func(err error) { t.Error(err) })
	}
}

func (c *collecting) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

// process returns the one that runs, 0 if none does.
func (c *collecting) process() int {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(text)) {
			line, _ := os.ReadFile("/proc/" + field + "/cmdline")
			if strings.HasPrefix(string(line), c.cfg.Export.Shipper+"\x00collect") {
				pid, _ := strconv.Atoi(field)
				return pid
			}
		}
	}
	return 0
}

// load is what runtimes trace under load: each span is posted when it ends, by who waits
// for that.
type load struct {
	posted  atomic.Int64
	longest atomic.Int64 // wait for the end of a span, in ns
	late    atomic.Int64 // of a goroutine that only sleeps, in ns: what the machine adds
}

func longer(v *atomic.Int64, d time.Duration) {
	for was := v.Load(); int64(d) > was && !v.CompareAndSwap(was, int64(d)); was = v.Load() {
	}
}

func startLoad(t *testing.T, url string, sandboxes ...string) *load {
	l := new(load)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) // posts fail, as is to be expected
	over := make(chan struct{})
	var running sync.WaitGroup
	for _, sandbox := range sandboxes {
		running.Go(func() {
			transport := new(http.Transport)
			defer transport.CloseIdleConnections()
			provider, err := GoRuntime(url, &http.Client{Transport: transport})
			if err != nil {
				t.Error(err)
				return
			}
			defer provider.Shutdown(context.Background())
			tracer := provider.Tracer("kata")
			for {
				select {
				case <-over:
					return
				default:
				}
				_, s := tracer.Start(context.Background(), "Start", trace.WithAttributes(
					attribute.String("source", "runtime"), attribute.String("sandbox_id", sandbox)))
				began := time.Now()
				s.End()
				longer(&l.longest, time.Since(began))
				l.posted.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	running.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			began := time.Now()
			time.Sleep(time.Millisecond)
			longer(&l.late, time.Since(began))
		}
	})
	t.Cleanup(func() {
		close(over)
		running.Wait()
	})
	return l
}

// TestNobodyWaitsForCollect: Kata's exporter, which has no limit of its own, waits for a
// process that is stopped or killed no longer than a second, whoever has to notice: the
// relays, of which there are many, or the guard. What it had is counted as lost.
func TestNobodyWaitsForCollect(t *testing.T) {
	for _, watched := range []string{"by relays", "by the guard"} {
		t.Run(watched, func(t *testing.T) {
			c := newCollecting(t)
			ctx, stop := context.WithCancel(t.Context())
			var running sync.WaitGroup
			t.Cleanup(func() {
				stop()
				running.Wait()
				for pid := c.process(); pid != 0; pid = c.process() {
					_ = unix.Kill(pid, unix.SIGKILL)
					time.Sleep(10 * time.Millisecond)
				}
			})
			sandbox := strings.Repeat("7794eff1", 8)
			var got atomic.Int64
			for n := range 8 {
				k := c.keeper(t)
				link := route.NewLink(route.LinkOptions{
					Dir: export.CollectDir(c.cfg), Sandbox: fmt.Sprint(n, sandbox)[1:], Ensure: k.Ensure,
					Warn: func(error) {},
				}, func(*span.Span) { got.Add(1) })
				running.Go(func() { link.Serve(ctx) })
				if watched == "by relays" {
					running.Go(func() { k.Watch(ctx) })
				}
			}
			if watched == "by the guard" {
				running.Go(func() {
					export.GuardCollect(ctx, c.cfg.Relay.StateDir, c.killing(t), c.printf)
				})
			}
			load := startLoad(t, "http://"+c.cfg.Jaeger.Listen+"/api/traces", sandbox, sandbox, sandbox, strings.Repeat("nobodys1", 8))
			for _, fault := range []unix.Signal{unix.SIGSTOP, unix.SIGKILL, unix.SIGSTOP} {
				before := got.Load()
				for began := time.Now(); got.Load() < before+50 || c.process() == 0; time.Sleep(10 * time.Millisecond) {
					if time.Since(began) > time.Minute {
						t.Fatalf("no spans arrive; the log: %q", c.log)
					}
				}
				time.Sleep(4 * time.Second) // the guard may look seldom until runtimes post
				load.longest.Store(0)
				load.late.Store(0)
				pid := c.process()
				if err := unix.Kill(pid, fault); err != nil {
					t.Fatal(err)
				}
				for began := time.Now(); c.process() == pid || c.process() == 0; time.Sleep(10 * time.Millisecond) {
					if time.Since(began) > time.Minute {
						t.Fatalf("it is not replaced; the log: %q", c.log)
					}
				}
				longest, late := time.Duration(load.longest.Load()), time.Duration(load.late.Load())
				t.Logf("%v: the longest wait was %v, that of who only sleeps %v", fault, longest, late)
				if longest > time.Second+4*late {
					t.Errorf("%v: a span took %v to end, where sleeping for a millisecond took %v", fault, longest, late)
				}
			}
			before := got.Load()
			for began := time.Now(); got.Load() < before+50; time.Sleep(10 * time.Millisecond) {
				if time.Since(began) > time.Minute {
					t.Fatalf("no spans arrive at the end; the log: %q", c.log)
				}
			}
			lost := make(map[string]int)
			if _, err := journal.Scan(c.cfg.Journal.Dir, func(rec journal.Record) error {
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
			t.Logf("%d spans posted, %d arrived, lost %v", load.posted.Load(), got.Load(), lost)
			for _, reason := range []string{"runtime: endpoint_gone", "runtime: endpoint_stopped"} {
				if lost[reason] == 0 {
					t.Errorf("none is counted as %s: %v", reason, lost)
				}
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if !slices.ContainsFunc(c.log, func(s string) bool { return strings.Contains(s, "is stopped: it is replaced") }) {
				t.Errorf("log %q", c.log)
			}
		})
	}
	reliability.Row(t, reliability.Fault{
		Area: "Hangs", Fault: "`shimtrace collect` is stopped, and killed, while runtimes end spans with Kata's exporter",
		Pod: "one wait of a second at most", Lost: "a span for each post that it had not read, as `runtime: endpoint_stopped`, and what it had, as `runtime: endpoint_gone`",
	})
}
