package kata

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/exporttest"
	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/interpose"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

const (
	// soakEnv is how many requests and streams are relayed, on one processor and again
	// on two; soakSeedEnv repeats a run.
	soakEnv     = "SHIMTRACE_SOAK"
	soakSeedEnv = "SHIMTRACE_SOAK_SEED"
	soakDefault = 600
	// soakPatience is how long one conversation may take.
	soakPatience = time.Minute
)

// TestSoakOfRequests relays requests to the agent as the relay process does, in the place
// of a VMM's socket, and compares every byte on both sides with what must stand there:
// requests of all kinds, with contexts put into them; streams; nonsense; both forms of
// the handshake; VMMs that turn attempts down; ends by halves, in order, and by force,
// within frames.
func TestSoakOfRequests(t *testing.T) {
	n := soakDefault
	if s := os.Getenv(soakEnv); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(soakSeedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for _, processors := range []int{1, 2} {
		t.Run(fmt.Sprint("processors ", processors), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
			soakRequests(t, n, seed)
		})
	}
}

// soak is one run.
type soak struct {
	t        *testing.T
	path     string // of the VMM's socket
	trace    string // the sandbox's
	vmm      net.Listener
	requests atomic.Int64
	conns    sync.Map // *talk by number
	spans    sync.Map // that have been put in
	kinds    [lastEnd]atomic.Int64
	attempts atomic.Int64
	bytes    atomic.Int64
}

// How a conversation ends.
const (
	clientHalf = iota // the client says no more, and hears the server out
	serverHalf        // the server does, and hears the client out
	clientKilled
	serverKilled
	lastEnd
)

// talk is one conversation, as both its ends know it.
type talk struct {
	number uint64
	end    int
	frames int // of the client

	mu       sync.Mutex
	asked    []frame       // what the client sends, in order
	partial  []byte        // a part of a frame at the end
	answered bytes.Buffer  // what the server has written
	served   chan struct{} // closed when the server is through
	heard    int           // frames that the server has got whole
}

func soakRequests(t *testing.T, n int, seed uint64) {
	t.Logf("%s=%d", soakSeedEnv, seed)
	dir := t.TempDir()
	s := &soak{t: t, path: filepath.Join(dir, "pod", "vm.sock")}
	if err := os.Mkdir(filepath.Dir(s.path), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default().Trace
	provider := export.NewTracerProvider(cfg, new(exporttest.Nowhere))
	sb := newPod(t, cfg)
	s.trace = sb.state.Trace.TraceID
	own := collate.New(collate.Options{Options: calls.Options{Root: sb.Root(), Quiet: cfg.Quiet}, Sink: func(*resourcepb.Resource, string, []byte, int) {}})
	tel := &telemetry.Telemetry{Provider: provider, Tracer: provider.Tracer(names.ShimScope)}
	k := &Observer{
		Options: Options{Guard: unguarded{}, Config: config.Config{Trace: cfg, Agent: config.Default().Agent}, Telemetry: tel, Log: slog.New(slog.NewTextHandler(t.Output(), nil))},
		sandbox: sb,
	}
	relay := k.requestRelay(newRequests(tel.Tracer, sb, own.Calls), false)
	i, err := interpose.New("pod", interpose.Options{
		Patterns: []listen.Pattern{{VMM: "soak", Path: filepath.Join(dir, "{sandbox}", "vm.sock")}},
		Pace:     vmmdir.NewPace(0),
		Relay:    relay.Connect,
		Warn:     func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	serving.Go(func() { i.Serve(ctx) })
	if s.vmm, err = net.Listen("unix", s.path); err != nil {
		t.Fatal(err)
	}
	serving.Go(s.serveVMM)
	shimtest.Eventually(t, "the place is taken", func() bool {
		aside, err := filepath.Glob(filepath.Join(filepath.Dir(s.path), ".shimtrace-vm.sock-*"))
		return err == nil && len(aside) == 1
	})
	var clients sync.WaitGroup
	var numbers atomic.Uint64
	began := time.Now()
	for range 6 {
		clients.Go(func() {
			for s.requests.Load() < int64(n) && !t.Failed() {
				number := numbers.Add(1)
				s.converse(number, &maker{Rand: rand.New(rand.NewPCG(seed, number))})
			}
		})
	}
	clients.Wait()
	took := time.Since(began)
	stop()
	closing, cancel := context.WithTimeout(context.Background(), soakPatience)
	defer cancel()
	s.vmm.Close()
	serving.Wait()
	if err := i.Close(closing); err != nil {
		t.Error(err)
	}
	got := i.Counts()
	if int64(got.Attempts) != s.attempts.Load() || got.Relayed != numbers.Load() {
		t.Errorf("counted %+v of %d attempts and %d conversations", got, s.attempts.Load(), numbers.Load())
	}
	t.Logf("%d requests and streams in %d conversations (ends: client by half %d, server by half %d, client killed %d, server killed %d), %d attempts in vain, %.1f MB in %v",
		s.requests.Load(), numbers.Load(), s.kinds[0].Load(), s.kinds[1].Load(), s.kinds[2].Load(), s.kinds[3].Load(), s.attempts.Load(), float64(s.bytes.Load())/1e6, took.Round(time.Millisecond))
}

// converse is the client's side of a conversation.
func (s *soak) converse(number uint64, m *maker) {
	k := &talk{number: number, end: m.IntN(lastEnd), frames: 1 + m.IntN(60), served: make(chan struct{})}
	k.asked = append(k.asked, frame{
		h:       wire.Header{Length: 8, Stream: 0, Type: 0x7f},
		payload: binary.BigEndian.AppendUint64(nil, number),
	})
	s.conns.Store(number, k)
	defer s.conns.Delete(number)
	s.kinds[k.end].Add(1)
	conn, in, ahead := s.handshake(k, m)
	if conn == nil {
		return
	}
	defer conn.Close()
	var reading sync.WaitGroup
	var got []byte
	var rerr error
	reading.Go(func() { got, rerr = io.ReadAll(in) })
	werr := error(nil)
	if !ahead {
		werr = s.write(conn, m, k.asked[0].bytes())
	}
	for n := 0; n < k.frames && werr == nil; n++ {
		f := m.next()
		all := f.bytes()
		if n == k.frames-1 && k.end == clientKilled && m.chance(50) {
			all = all[:m.IntN(len(all))] // killed within a frame
			k.mu.Lock()
			k.partial = all
			k.mu.Unlock()
			werr = s.write(conn, m, all)
			break
		}
		k.mu.Lock()
		k.asked = append(k.asked, f)
		k.mu.Unlock()
		werr = s.write(conn, m, all)
		s.requests.Add(1)
	}
	switch k.end {
	case clientHalf, serverHalf:
		if err := conn.CloseWrite(); err != nil && werr == nil {
			werr = err
		}
	case clientKilled:
		conn.Close()
	}
	reading.Wait()
	select {
	case <-k.served:
	case <-time.After(soakPatience):
		s.t.Errorf("talk %d: the server is not told of the end", number)
		return
	}
	s.compare(k, got, rerr, werr)
}

// compare says what is wrong with what the client got, and with what the server did not.
func (s *soak) compare(k *talk, got []byte, rerr, werr error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.end == serverKilled && errors.Is(rerr, syscall.ECONNRESET) {
		rerr = nil // as the kernel has it of a server that has not read all
	}
	if k.end != clientKilled && (rerr != nil || !bytes.Equal(got, k.answered.Bytes())) {
		s.t.Errorf("talk %d, end %d: %d of %d bytes of answers, %v", k.number, k.end, len(got), k.answered.Len(), rerr)
	}
	if k.end == clientKilled && !bytes.HasPrefix(k.answered.Bytes(), got) {
		s.t.Errorf("talk %d: what the killed client got is not what was said", k.number)
	}
	if k.end == serverKilled {
		return // the rest of the client's was for nobody
	}
	if werr != nil || k.heard != len(k.asked) {
		s.t.Errorf("talk %d, end %d: %d of %d frames arrived, %v", k.number, k.end, k.heard, len(k.asked), werr)
	}
}

// handshake asks for the agent until it listens, as runtimes do: each attempt before that
// is turned down. It reports whether the first frame was sent along, which runtimes do not.
func (s *soak) handshake(k *talk, m *maker) (conn *net.UnixConn, in *bufio.Reader, ahead bool) {
	line := []byte([]string{"CONNECT", "connect"}[m.IntN(2)] + " 1024\n")
	if ahead = m.chance(20); ahead {
		line = append(line, k.asked[0].bytes()...)
	}
	for {
		conn := s.dial()
		if err := s.write(conn, m, line); err != nil && !errors.Is(err, syscall.EPIPE) {
			s.t.Errorf("talk %d: handshake: %v", k.number, err)
		}
		in := bufio.NewReader(conn)
		ok, err := in.ReadString('\n')
		if err == nil && strings.HasPrefix(ok, "OK ") {
			return conn, in, ahead
		}
		conn.Close()
		if ok != "" || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			s.t.Errorf("talk %d: handshake: %q, %v", k.number, ok, err)
			return nil, nil, false
		}
	}
}

func (s *soak) dial() *net.UnixConn {
	for {
		conn, err := net.Dial("unix", s.path)
		if errors.Is(err, syscall.EAGAIN) {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			s.t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(soakPatience))
		return conn.(*net.UnixConn)
	}
}

func (s *soak) write(conn net.Conn, m *maker, b []byte) error {
	s.bytes.Add(int64(len(b)))
	for _, piece := range m.pieces(b) {
		if _, err := conn.Write(piece); err != nil {
			return err
		}
	}
	return nil
}
