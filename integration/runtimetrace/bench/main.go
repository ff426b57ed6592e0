// Command bench measures what a span of Kata's Go runtime costs the code that it is
// about: posted to a Jaeger, as Kata has it, and posted to "shimtrace collect", by
// turns, in one run. The runtime's exporter is the same for both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/integration/runtimetrace"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// block is how many spans go one way before another has its turn: what the machine
// does meanwhile hits all.
const block = 50

func main() {
	spans := flag.Int("spans", 10000, "spans by each way")
	program := flag.String("shimtrace", "../bin/shimtrace", "the operator's tool")
	flag.Parse()
	if err := run(context.Background(), *spans, *program); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// way is where spans go.
type way struct {
	name   string
	tracer trace.Tracer
	took   []time.Duration
}

func run(ctx context.Context, spans int, program string) (err error) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(e error) { err = errors.Join(err, e) }))
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := toolset.Root()
	if err != nil {
		return err
	}
	if err := toolset.Build(ctx, root, []toolset.Tool{toolset.Jaeger}, os.Stderr); err != nil {
		return err
	}
	collectors := []*process{
		jaeger(filepath.Join(toolset.Jaeger.Dir(root), "jaeger"), dir),
		collect(program, dir),
	}
	var ways []*way
	for _, c := range collectors {
		if err := c.start(); err != nil {
			return err
		}
		defer c.stop()
		provider, err := runtimetrace.GoRuntime("http://"+c.address+"/api/traces", new(http.Client))
		if err != nil {
			return err
		}
		defer provider.Shutdown(ctx)
		ways = append(ways, &way{name: c.name, tracer: provider.Tracer("kata")})
	}
	for n := -block; n < spans; n += block {
		for _, w := range ways {
			w.make(ctx, n >= 0)
		}
		if err != nil {
			return fmt.Errorf("post: %w", err)
		}
	}
	for i, w := range ways {
		fmt.Printf("a span posted to %s, %d of them: p50 %.1f µs p99 %.1f µs mean %.1f µs; its process: %s\n",
			w.name, spans, percentile(w.took, 50), percentile(w.took, 99), mean(w.took), collectors[i].usage())
	}
	return nil
}

// make makes a block of spans, such as those of the runtime's that have most of the
// attributes, and takes the time of each.
func (w *way) make(ctx context.Context, count bool) {
	for range block {
		start := time.Now()
		_, span := w.tracer.Start(ctx, "bindMount", trace.WithAttributes(
			attribute.String("source", "runtime"), attribute.String("package", "virtcontainers"),
			attribute.String("subsystem", "mount"), attribute.String("sandbox_id", "7794eff13c04c4f5dda5c1a3eb5122cd670dd740b1727ce1b5c6ad1d62f675d3"),
		))
		span.End()
		if count {
			w.took = append(w.took, time.Since(start))
		}
	}
}

// percentile returns it in microseconds.
func percentile(all []time.Duration, percent int) float64 {
	slices.Sort(all)
	return float64(all[(len(all)-1)*percent/100].Nanoseconds()) / 1e3
}

func mean(all []time.Duration) float64 {
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return float64(sum.Nanoseconds()) / 1e3 / float64(len(all))
}

// process is what spans are posted to.
type process struct {
	name, address string
	cmd           *exec.Cmd
	log           strings.Builder
}

// jaeger stores in memory, as it does when it is started without any configuration.
func jaeger(program, dir string) *process {
	p := &process{name: "Jaeger " + toolset.Jaeger.Version, address: free()}
	config := filepath.Join(dir, "jaeger.yaml")
	text := fmt.Sprintf(`
service:
  extensions: [jaeger_storage]
  pipelines:
    traces: {receivers: [jaeger], processors: [batch], exporters: [jaeger_storage_exporter]}
  telemetry:
    metrics: {level: none}
    logs: {level: error}
extensions:
  jaeger_storage: {backends: {memory: {memory: {max_traces: 100000}}}}
receivers:
  jaeger: {protocols: {thrift_http: {endpoint: "%s"}}}
processors:
  batch:
exporters:
  jaeger_storage_exporter: {trace_storage: memory}
`, p.address)
	_ = os.WriteFile(config, []byte(text), 0o600)
	p.cmd = exec.Command(program, "--config", config)
	return p
}

// collect has no relay to give the spans to; those who post do not notice.
func collect(program, dir string) *process {
	p := &process{name: "shimtrace collect", address: free()}
	config := filepath.Join(dir, "shimtrace.toml")
	text := fmt.Sprintf("[journal]\ndir = %q\n[relay]\nstate_dir = %q\n[jaeger]\nreceive = \"on\"\nlisten = %q\n",
		filepath.Join(dir, "journal"), filepath.Join(dir, "state"), p.address)
	_ = os.WriteFile(config, []byte(text), 0o600)
	p.cmd = exec.Command(program, "collect", "--idle", "0")
	p.cmd.Env = append(os.Environ(), "SHIMTRACE_CONFIG="+config)
	return p
}

// free returns an address of the loopback interface that nobody uses.
func free() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err.Error() // which nobody can listen at
	}
	defer l.Close()
	return l.Addr().String()
}

// start returns when the process listens.
func (p *process) start() error {
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	for range 1000 {
		if c, err := net.Dial("tcp", p.address); err == nil {
			return c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.stop()
	return fmt.Errorf("%s does not listen at %s:\n%s", p.name, p.address, &p.log)
}

func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	time.AfterFunc(5*time.Second, func() { p.cmd.Process.Kill() })
	p.cmd.Wait()
}

// usage returns the process's memory and processor time so far.
func (p *process) usage() string {
	var rss, ticks, system int64
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)); err == nil {
		if _, after, ok := strings.Cut(string(text), "VmRSS:"); ok {
			fmt.Sscan(after, &rss)
		}
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid)); err == nil {
		if _, after, ok := strings.Cut(string(text), ") "); ok {
			if f := strings.Fields(after); len(f) > 12 {
				fmt.Sscan(f[11], &ticks)
				fmt.Sscan(f[12], &system)
			}
		}
	}
	return fmt.Sprintf("RSS %.1f MB, %.2f s of CPU", float64(rss)*1024/1e6, float64(ticks+system)/100)
}
