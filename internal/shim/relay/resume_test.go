package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/kata"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// end returns one end of a connection as a successor gets it, and the other.
func end(t *testing.T) (left *os.File, other *net.UnixConn) {
	t.Helper()
	other, left, err := host.UnixPair(unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	_ = other.SetDeadline(time.Now().Add(20 * time.Second))
	return left, other
}

// listens returns a listener as a successor gets it.
func listens(t *testing.T, path string) *os.File {
	t.Helper()
	l := shimtest.Listen(t, path)
	f, err := l.File()
	if err = errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestResumeDoesNoHarm: whatever a relay left of its own, the bytes of its connections
// flow on, and the process ends with the inner shim. An agent is not refused, and an
// operator is not left waiting.
func TestResumeDoesNoHarm(t *testing.T) {
	for name, tt := range map[string]struct {
		text    string // that the relay has saved; "-": no memory was left
		attempt int
	}{
		"nothing saved":                  {"", 1},
		"no memory":                      {"-", 1},
		"not JSON":                       {"x", 1},
		"another version":                {`{"version":99}`, 1},
		"no trace":                       {`{"version":1}`, 1},
		"another sandbox's":              {`{"version":1,"sandbox":{"state":{"trace":{"trace_id":"00000000000000000000000000000001","span_id":"0000000000000001"},"inner_socket":"/other"}}}`, 1},
		"successors die again and again": {"whole", bytesOnly},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := config.Default()
			cfg.Relay.StateDir, cfg.Journal.Dir = dir, filepath.Join(dir, "journal")
			st := state.State{
				Version: state.Version, Trace: state.NewTraceContext(export.NewRoot(t.Context(), cfg.Trace)), Started: time.Now(),
				InnerSock: filepath.Join(dir, "inner"), InnerPID: os.Getpid(), RelaySock: state.PathsOf(dir, filepath.Join(dir, "inner")).Socket,
			}
			if err := st.Paths().Create(); err != nil {
				t.Fatal(err)
			}
			sentinel, inner := end(t)
			clientEnd, client := end(t)
			serverEnd, server := end(t)
			m, err := handover.New()
			if err != nil {
				t.Fatal(err)
			}
			agents, controls := filepath.Join(dir, "vm.sock_10240"), filepath.Join(dir, "control")

			got := &guard.Resumption{Attempt: tt.attempt, At: time.Now(), Cause: guard.Killed, Entries: []guard.Received{
				{Name: entrySentinel, Data: essentials{InnerSock: st.InnerSock, InnerPID: st.InnerPID, RelaySock: st.RelaySock}.data(), Files: []*os.File{sentinel}},
				{Name: "conn/7", Kind: guard.Relayed, Files: []*os.File{clientEnd, serverEnd, m.File()}},
				{Name: "conn/8", Kind: guard.Relayed, Files: []*os.File{}}, // of which something is missing
				{Name: "hybrid/9", Data: fmt.Appendf(nil, `{"path":%q}`, agents), Files: []*os.File{listens(t, agents)}},
				{Name: entryControl, Kind: guard.Listener, Files: []*os.File{listens(t, controls)}},
				{Name: "later/1", Data: []byte("?"), Files: []*os.File{}}, // of a newer program
			}}
			if tt.text != "-" {
				own, err := newMemory()
				if err != nil {
					t.Fatal(err)
				}
				if text := tt.text; text != "" {
					if text == "whole" {
						text = `{"version":1,"sandbox":{"state":{"trace":{"trace_id":"00000000000000000000000000000001","span_id":"0000000000000001"}}}}`
					}
					if _, err := own.Write([]byte(text)); err != nil {
						t.Fatal(err)
					}
				}
				got.Entries = append(got.Entries, guard.Received{Name: entryMemory, Files: []*os.File{own.file}})
			}
			var log strings.Builder
			p, err := Resume(Options{Config: cfg, Log: slog.New(slog.NewTextHandler(&log, nil))}, got)
			if err != nil {
				t.Fatal(err)
			}
			for text, ends := range map[string][2]*net.UnixConn{"to the server": {client, server}, "to the client": {server, client}} {
				buf := make([]byte, len(text))
				_, werr := io.WriteString(ends[0], text)
				_, rerr := io.ReadFull(ends[1], buf)
				if err := errors.Join(werr, rerr); err != nil || string(buf) != text {
					t.Errorf("%q became %q, %v", text, buf, err)
				}
			}
			agent, err := net.Dial("unix", agents)
			if err != nil {
				t.Fatalf("the agent: %v", err)
			}
			_ = agent.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := agent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("nobody listens to the agent, but it gets %v", err)
			}
			agent.Close()
			if _, err := net.Dial("unix", controls); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("at the control socket: %v", err)
			}
			ran := make(chan struct{})
			go func() {
				defer close(ran)
				p.Run()
			}()
			client.Close()
			server.Close()
			inner.Close()
			select {
			case <-ran:
			case <-time.After(20 * time.Second):
				t.Fatal("it does not end with the inner shim")
			}
			if !strings.Contains(log.String(), "not traced any more") {
				t.Errorf("it says nothing of it: %s", log.String())
			}
		})
	}
}

// TestResumedOnce: a connection that one relay goes on with is no other's, also if the first
// one was made by what has failed since.
func TestResumedOnce(t *testing.T) {
	clientEnd, client := end(t)
	serverEnd, server := end(t)
	m, err := handover.New()
	if err != nil {
		t.Fatal(err)
	}
	c, err := connectionOf(guard.Received{Name: "request/1", Files: []*os.File{clientEnd, serverEnd, m.File()}})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	p := &Process{Options: Options{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	resume := p.resumers([]connection{c})[0]
	client.Close()
	server.Close()
	for range 2 {
		resume(p.bytes())
	}
	if log.Len() > 0 {
		t.Errorf("it says %s", log.String())
	}
}

// TestKilledBeforeItCounts: what was lost with a process is counted once, also if the next one
// dies before it has written the count.
func TestKilledBeforeItCounts(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Relay.StateDir, cfg.Journal.Dir = dir, filepath.Join(dir, "journal")
	cfg.Agent.Receive, cfg.Agent.Inject, cfg.Jaeger.Receive = "off", "off", "off"
	memory, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	was := saved{Sandbox: savedSandbox{State: state.State{
		Version: state.Version, Trace: state.NewTraceContext(export.NewRoot(t.Context(), cfg.Trace)), Started: time.Now(),
	}}}
	next := func() *Process {
		t.Helper()
		p := &Process{Options: Options{Config: cfg}, memory: memory}
		p.Log, p.logs = telemetry.Correlate(slog.New(slog.DiscardHandler))
		p.begin(p.Options)
		if err := p.goOn(was, kata.Left{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.tel.Close(p.Log, 0) })
		return p
	}
	memory.waiting().Store(3)
	memory.held().Store(2)
	next() // and dies
	memory.waiting().Store(4)
	p := next()
	p.told(&guard.Resumption{At: time.Now(), Cause: guard.Killed})
	p.died(8)
	p.sandbox.exports.Wait()
	p = next() // has nothing to count
	p.told(&guard.Resumption{At: time.Now(), Cause: guard.Killed})
	p.sandbox.exports.Wait()
	got := make(map[string]int)
	if _, err := journal.Scan(cfg.Journal.Dir, func(r journal.Record) error {
		if r.Kind.Traces() {
			return nil
		}
		drops, err := r.Drops()
		for reason, n := range drops {
			got[reason] += n
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := map[string]int{"relay_died": 15, "agent: relay_died": 2}; !maps.Equal(got, want) {
		t.Errorf("counted are %v, want %v", got, want)
	}
}

// TestHandOverBeforeItRelays: a process that is about to go on for another one may be asked to
// hand over, and refuses.
func TestHandOverBeforeItRelays(t *testing.T) {
	if _, err := new(Process).handOver(t.Context()); err == nil {
		t.Error("it hands over what it does not have")
	}
}

// panicking is a log that panics when something is said with a word.
type panicking struct {
	slog.Handler
	word string
}

func (p panicking) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, p.word) {
		panic("panic of a test")
	}
	return p.Handler.Handle(ctx, r)
}

// TestPanicWhileGoingOn: a panic costs tracing; but where something has begun for a sandbox
// of Kata's, which could take what is to be given back, it is the process that ends, for
// another one that does nothing but relay bytes in the end.
func TestPanicWhileGoingOn(t *testing.T) {
	for name, tt := range map[string]struct {
		receive string
		word    string
		ends    bool
	}{
		"kata has begun": {"on", "agent's spans", true},
		"nothing of it":  {"off", "window of tracing", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := config.Default()
			cfg.Relay.StateDir, cfg.Journal.Dir = dir, filepath.Join(dir, "journal")
			cfg.Agent.Receive, cfg.Agent.Inject, cfg.Jaeger.Receive = tt.receive, "off", "off"
			p := &Process{Options: Options{Config: cfg, Log: slog.New(panicking{slog.NewTextHandler(io.Discard, nil), tt.word})}}
			var err error
			if p.memory, err = newMemory(); err != nil {
				t.Fatal(err)
			}
			was := saved{Kata: []byte(`"unknown"`), Sandbox: savedSandbox{State: state.State{
				Version: state.Version, Trace: state.NewTraceContext(export.NewRoot(t.Context(), cfg.Trace)), Started: time.Now(), Window: new(state.Window),
			}}}
			ended := func() (ended bool) {
				defer func() { ended = recover() != nil }()
				err = p.tryGoOn(was, kata.Left{Saved: was.Kata})
				return false
			}()
			if ended != tt.ends || !ended && err == nil {
				t.Errorf("the process has ended: %v, error %v", ended, err)
			}
			p.Log = slog.New(slog.DiscardHandler)
			if p.kata != nil {
				p.kata.Log = p.Log
				p.kata.Close()
			}
			p.tel.Close(p.Log, 0)
		})
	}
}
