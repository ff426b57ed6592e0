package traced_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// planted is in each secret of the tests, and nowhere else.
const planted = "pl4nted"

// secret returns the secret of a place.
func secret(place string) string { return planted + "-" + place + "-secret" }

// echo is a backend that refuses whatever it gets, and repeats all headers in its answer, until
// it is to take everything.
type echo struct {
	takes  atomic.Bool
	mu     sync.Mutex
	heard  map[string]bool // headers' values
	bodies bytes.Buffer
}

// The echo's addresses in a rig: over HTTP, gRPC, and HTTP in TLS.
const (
	echoHTTP = "127.0.0.1:4318"
	echoGRPC = "127.0.0.1:4317"
	echoTLS  = "127.0.0.1:4319"
)

// listenEcho starts one in a rig.
func listenEcho(t *testing.T, netns string, settings *tls.Config) *echo {
	t.Helper()
	e := &echo{heard: make(map[string]bool)}
	listen := func(address string) net.Listener {
		l, err := otlprecv.ListenTCP(netns, address)
		check(t, err)
		return l
	}
	web := &http.Server{Handler: e}
	remote := grpc.NewServer(grpc.UnknownServiceHandler(e.answer))
	var serving sync.WaitGroup
	serving.Go(func() { _ = web.Serve(listen(echoHTTP)) })
	serving.Go(func() { _ = web.Serve(tls.NewListener(listen(echoTLS), settings)) })
	serving.Go(func() { _ = remote.Serve(listen(echoGRPC)) })
	t.Cleanup(func() {
		web.Close()
		remote.Stop()
		serving.Wait()
	})
	return e
}

func (e *echo) hear(values ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v := range values {
		e.heard[v] = true
	}
}

func (e *echo) has(value string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[value]
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if z, err := gzip.NewReader(r.Body); err == nil {
		body = z
	}
	b, _ := io.ReadAll(body)
	e.mu.Lock()
	e.bodies.Write(b)
	e.mu.Unlock()
	text := r.RequestURI
	for name, values := range r.Header {
		e.hear(values...)
		text += fmt.Sprintf(" %s=%s", name, strings.Join(values, ","))
	}
	if e.takes.Load() {
		if strings.HasSuffix(r.URL.Path, "/spans") { // Zipkin's
			w.WriteHeader(http.StatusAccepted)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Server", r.Header.Get("Authorization"))
	w.WriteHeader(http.StatusForbidden)
	_, _ = io.WriteString(w, text)
}

// answer is that of any method over gRPC.
func (e *echo) answer(_ any, stream grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	for _, values := range md {
		e.hear(values...)
	}
	if e.takes.Load() {
		return stream.SendMsg(new(emptypb.Empty)) // an answer without a word
	}
	return grpcstatus.Errorf(codes.PermissionDenied, "%v", md)
}

// search looks for secrets in what shimtrace writes.
type search struct {
	*testing.T
	*traced.Install
	env     []string // the operator's environment of containerd and the tool
	needles []string
	found   int // how much was searched, in bytes
}

// text fails if there is a secret in a text.
func (s *search) text(of, text string) {
	s.Helper()
	s.found += len(text)
	for _, needle := range s.needles {
		if at := strings.Index(text, needle); at >= 0 {
			s.Errorf("%s: …%s…", of, text[max(0, at-120):min(len(text), at+80)])
		}
	}
}

// says runs a command of the tool, and searches what it says.
func (s *search) says(args ...string) (said string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	cmd := s.Rig.Command(ctx, filepath.Join(s.Bin, "shimtrace"), args...)
	cmd.Env = append(append(cmd.Env, "SHIMTRACE_CONFIG="+s.Config), s.env...)
	out, _ := cmd.CombinedOutput()
	s.text(strings.Join(args, " "), string(out))
	if len(out) == 0 {
		s.Errorf("%q says nothing", args)
	}
	return string(out)
}

// files searches all files below a directory, sockets and the like left out.
func (s *search) files(dir string) {
	s.Helper()
	n := 0
	check(s.T, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		if b, err := os.ReadFile(path); err == nil {
			n++
			s.text(path, string(b))
		}
		return nil
	}))
	if n == 0 {
		s.Errorf("no files in %s", dir)
	}
}

// controls searches what relays answer at their control sockets, byte by byte.
func (s *search) controls() {
	s.Helper()
	all, err := control.List(stateDir(s.Rig))
	check(s.T, err)
	for _, r := range all {
		conn, err := net.Dial("unix", r.Socket)
		check(s.T, err)
		defer conn.Close()
		check(s.T, conn.SetDeadline(time.Now().Add(time.Minute)))
		_, err = io.WriteString(conn, `{"version":1,"do":"status"}`+"\n")
		check(s.T, err)
		answer := make([]byte, 64<<10)
		n, err := conn.Read(answer)
		check(s.T, err)
		s.text("control socket", string(answer[:n]))
		if !strings.Contains(string(answer[:n]), `"configuration"`) {
			s.Errorf("the control socket answers %s", answer[:n])
		}
	}
	if len(all) == 0 {
		s.Error("there is no relay")
	}
}

// processes searches the command lines and environments of shimtrace's processes, in which
// the operator's own variables may be.
func (s *search) processes() {
	s.Helper()
	kinds := make(map[string]bool)
	for _, p := range s.Rig.Processes() {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
		if err != nil || filepath.Dir(exe) != s.Bin {
			continue
		}
		kinds[filepath.Base(exe)] = true
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		s.text(exe+" cmdline", string(line))
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		for v := range strings.SplitSeq(string(environ), "\x00") {
			own := false
			for _, of := range s.env {
				own = own || v == of
			}
			if !own {
				s.text(exe+" environ", v)
			}
		}
	}
	if len(kinds) < 2 {
		s.Errorf("processes of %v", kinds)
	}
}

// collect runs the collecting process, whose output is searched as long as the test runs.
func (s *search) collect() *testkit.Output {
	s.Helper()
	cmd := s.Rig.Command(context.Background(), filepath.Join(s.Bin, "shimtrace"), "collect", "--service")
	cmd.Env = append(append(cmd.Env, "SHIMTRACE_CONFIG="+s.Config), s.env...)
	said := new(testkit.Output)
	cmd.Stdout, cmd.Stderr = said, said
	check(s.T, cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		s.text("collect", said.String())
		if s.Failed() {
			s.Logf("collect: %s", said)
		}
	})
	return said
}
