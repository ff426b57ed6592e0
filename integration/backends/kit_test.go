package backends

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func TestMain(m *testing.M) {
	code := m.Run()
	traced.Clean()
	os.Exit(code)
}

var check = testkit.Check

var until = testkit.Until

// A site is a rig whose spans go to a backend in the rig's network.
type site struct {
	*testing.T
	*traced.Install
}

// start starts one with these lines of [export].
func start(t *testing.T, export ...string) *site {
	t.Helper()
	shipper, err := traced.ImpatientShipper(t.TempDir())
	check(t, err)
	return &site{t, traced.Start(t, traced.Options{
		Options: rig.Options{Version: rig.V24},
		Config:  "[export]\n" + strings.Join(export, "\n") + "\nshipper = '" + shipper + "'\n",
	})}
}

// needed returns the cache directory for a test of make test-backends, which needs tools
// that make test does not have.
func needed(t *testing.T, tool toolset.Tool) string {
	t.Helper()
	if os.Getenv("SHIMTRACE_BACKENDS") == "" {
		t.Skip("make test-backends runs it")
	}
	root, err := toolset.Root()
	check(t, err)
	if !tool.Built(root) {
		t.Fatalf("no %s in %s: make test-backends builds it", tool, root)
	}
	return root
}

// serve runs a backend in the rig's network until the test ends.
func (s *site) serve(ready func() bool, program string, args ...string) {
	s.Helper()
	ctx, end := context.WithCancel(context.Background())
	cmd := s.Rig.Command(ctx, program, args...)
	log, err := os.Create(filepath.Join(s.TempDir(), "backend.log"))
	check(s.T, err)
	cmd.Stdout, cmd.Stderr = log, log
	check(s.T, cmd.Start())
	s.Cleanup(func() {
		// A shipper that misses an answer would wait for the backend to come back.
		until(s.T, "the shipper to end", func() bool { return len(traced.Find(s.Rig, traced.Collect)) == 0 })
		end()
		_ = cmd.Wait()
		log.Close()
		if s.Failed() {
			text, _ := os.ReadFile(log.Name())
			s.Logf("%s: %s", filepath.Base(program), text[max(0, len(text)-4000):])
		}
	})
	until(s.T, program+" to be ready", ready)
}

// answers returns whether a URL in the rig's network is there.
func (s *site) answers(url string) func() bool {
	return func() bool { _, err := s.get(url); return err == nil }
}

// listens reports whether something listens at an address in the rig's network.
func (s *site) listens(address string) bool {
	conn, err := otlprecv.Dialer(s.Rig.NetNS())(s.Context(), "tcp", address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// get gets a URL in the rig's network.
func (s *site) get(url string) ([]byte, error) {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: otlprecv.Dialer(s.Rig.NetNS()), DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

// run runs a container that works and one that fails, and returns what the journal has
// of them.
func (s *site) run() []otlprecv.Span {
	s.Helper()
	for id, command := range map[string]string{"good": "exit 3", "bad": ""} {
		args := []string{"run", "--rm", "--runtime", s.Runtime.Shim(), image.Busybox, id}
		if command != "" {
			args = append(args, "sh", "-c", command)
		} else {
			args = append(args, "/no/such/program")
		}
		if res := s.Rig.Ctr(args...); res.Code == 0 {
			s.Fatalf("%s: %v", id, res)
		}
	}
	until(s.T, "the shims to end", func() bool { return traced.ShimsEnded(s.Rig) })
	spans, err := s.Spans()
	check(s.T, err)
	if len(spans) == 0 {
		s.Fatal("the journal is empty")
	}
	return spans
}
