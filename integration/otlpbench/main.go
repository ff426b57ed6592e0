// Command otlpbench measures how many spans a second and core get into the journal
// through the host's OTLP endpoint, beside the OpenTelemetry Collector's OTLP receiver,
// whose spans go nowhere. Both run on one core and get the same posts by turns; the
// programs that send them are on the others.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// spansInPost is what OpenTelemetry's batch processors send at a time.
	spansInPost = 512
	// programs send at a time, one post after another.
	programs = 4
	// rounds of each way: what the machine does meanwhile hits all.
	rounds = 4
)

func main() {
	each := flag.Duration("time", 8*time.Second, "for each way")
	program := flag.String("shimtrace", "../bin/shimtrace", "the operator's tool")
	alone := flag.Bool("alone", false, "without the Collector, which takes a minute to build the first time")
	flag.Parse()
	if err := run(context.Background(), *each, *program, *alone); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measured is what came of one way to one server.
type measured struct {
	spans     int
	wall, cpu time.Duration
}

func run(ctx context.Context, each time.Duration, program string, alone bool) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	servers := []*server{shimtrace(program, dir)}
	if !alone {
		collector, err := collector(ctx, dir)
		if err != nil {
			return err
		}
		servers = append(servers, collector)
	}
	for _, s := range servers {
		if err := s.start(); err != nil {
			return err
		}
		defer s.stop()
	}
	results := make(map[string]*measured)
	for range rounds {
		for _, s := range servers {
			for _, w := range ways {
				name := fmt.Sprintf("%-16s %-14s", s.name, w.name)
				if results[name] == nil {
					results[name] = new(measured)
				}
				if err := send(ctx, s, w, each/rounds, results[name]); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
	}
	body := post()
	fmt.Printf("posts of %d spans, %d bytes each\n", spansInPost, len(body)/spansInPost)
	for _, s := range servers {
		for _, w := range ways {
			name := fmt.Sprintf("%-16s %-14s", s.name, w.name)
			m := results[name]
			fmt.Printf("%s %9.0f spans/s and core %9.0f spans/s %6.2f µs of processor a span\n", name,
				float64(m.spans)/m.cpu.Seconds(), float64(m.spans)/m.wall.Seconds(), float64(m.cpu.Microseconds())/float64(m.spans))
		}
	}
	return nil
}

// send sends posts for some time, and adds what came of it.
func send(ctx context.Context, s *server, w way, d time.Duration, m *measured) error {
	client, err := w.dial(s)
	if err != nil {
		return err
	}
	defer client.close()
	body := post()
	if err := client.send(ctx, body); err != nil { // connected
		return err
	}
	before := s.processor()
	began, end := time.Now(), time.Now().Add(d)
	var spans atomic.Int64
	var failure atomic.Pointer[error]
	var sending sync.WaitGroup
	for range programs {
		sending.Go(func() {
			for time.Now().Before(end) {
				if err := client.send(ctx, body); err != nil {
					failure.Store(&err)
					return
				}
				spans.Add(spansInPost)
			}
		})
	}
	sending.Wait()
	if err := failure.Load(); err != nil {
		return *err
	}
	m.wall += time.Since(began)
	m.cpu += s.processor() - before
	m.spans += int(spans.Load())
	return nil
}

// file writes a file into the directory.
func file(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}
