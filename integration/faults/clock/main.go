// Command clock sets the clock of the machine that it runs on back and forth while a
// relay relays calls, and says what came of it. It is for guests of tests, which have a
// clock of their own: never run it elsewhere.
//
//	clock WRAPPER
//
// WRAPPER is the wrapper of the shim that echoes, which is found beside it.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/internal/export/journal"
)

func main() {
	if os.Getenv("VM_CID") == "" {
		fmt.Fprintln(os.Stderr, "clock: this is no guest, whose clock could be set")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Println("clock: failed:", err)
		os.Exit(1)
	}
}

const (
	dir     = "/run/clock"
	timeout = 4 * time.Minute
)

// steps are how far the clock is moved, one after the other.
var steps = []time.Duration{time.Hour, -2 * time.Hour, 30 * 24 * time.Hour, -29 * 24 * time.Hour, -time.Second, 10 * time.Second}

func run(wrapper string) error {
	bundle := filepath.Join(dir, "bundle")
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		return err
	}
	config := filepath.Join(dir, "config.toml")
	for path, text := range map[string]string{
		config:                               "[journal]\ndir = '" + dir + "/journal'\n[relay]\nready_timeout = '30s'\n",
		filepath.Join(bundle, "config.json"): `{"ociVersion":"1.2.0"}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	address, err := action(wrapper, bundle, config, "start")
	if err != nil {
		return err
	}
	socket, relayed := strings.CutPrefix(address, "unix://")
	if !relayed || filepath.Dir(socket) == bundle {
		return fmt.Errorf("the relay is not in the inner shim's place: %q", address)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	c := ttrpc.NewClient(conn)
	defer c.Close()
	// Between start and the first task, whose answer ends the sandbox's first span.
	if err := move(-time.Hour); err != nil {
		return err
	}
	for _, method := range []string{"Create", "Start"} {
		if err := call(c, "containerd.task.v2.Task", method, new(emptypb.Empty), new(emptypb.Empty)); err != nil {
			return err
		}
	}
	calls, longest, err := load(c)
	if err != nil {
		return err
	}
	if err := call(c, "containerd.task.v2.Task", "Shutdown", new(emptypb.Empty), new(emptypb.Empty)); err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		return err
	}
	if _, err := action(wrapper, bundle, config, "delete"); err != nil {
		return err
	}
	return report(calls, longest)
}

// load makes calls while the clock is set.
func load(c *ttrpc.Client) (calls int, longest time.Duration, err error) {
	stop := make(chan struct{})
	var calling sync.WaitGroup
	calling.Go(func() {
		body := wrapperspb.Bytes(bytes.Repeat([]byte("tick"), 1000))
		for err == nil {
			select {
			case <-stop:
				return
			default:
			}
			begun := time.Now() // by the clock that nobody sets
			got := new(wrapperspb.BytesValue)
			err = call(c, "shimtrace.test.Echo", "Echo", body, got)
			if err == nil && !bytes.Equal(got.Value, body.Value) {
				err = errors.New("an echo is another")
			}
			longest = max(longest, time.Since(begun))
			calls++
			time.Sleep(5 * time.Millisecond)
		}
	})
	var moved error
	for _, step := range steps {
		time.Sleep(300 * time.Millisecond)
		moved = errors.Join(moved, move(step))
	}
	time.Sleep(300 * time.Millisecond)
	close(stop)
	calling.Wait()
	return calls, longest, errors.Join(moved, err)
}

// move sets the clock.
func move(by time.Duration) error {
	now := unix.NsecToTimeval(time.Now().Add(by).UnixNano())
	return unix.Settimeofday(&now)
}

func call(c *ttrpc.Client, service, method string, req, resp any) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := c.Call(ctx, service, method, req, resp); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

func action(wrapper, bundle, config, name string) (string, error) {
	cmd := exec.Command(wrapper, "-namespace", "k8s.io", "-address", "/run/none.sock", "-publish-binary", "/bin/true", "-id", "echo", "-bundle", bundle, name)
	cmd.Dir = bundle
	cmd.Env = append(os.Environ(), "SHIMTRACE_CONFIG="+config, "NAMESPACE=k8s.io", "TTRPC_ADDRESS=/run/none.sock.ttrpc", "GRPC_ADDRESS=/run/none.sock")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, stderr.String())
	}
	return string(out), nil
}

// report waits for the relay's last words and says what is recorded.
func report(calls int, longest time.Duration) error {
	var spans, echoes, backwards, endless, lost int
	for begun := time.Now(); time.Since(begun) < timeout; time.Sleep(100 * time.Millisecond) {
		spans, echoes, backwards, endless, lost = 0, 0, 0, 0, 0
		last := false
		_, err := journal.Scan(filepath.Join(dir, "journal"), func(r journal.Record) error {
			if r.Kind != journal.KindTraces {
				lost += r.Spans
				return nil
			}
			t, err := r.Traces()
			if err != nil {
				return err
			}
			for _, rs := range t.ResourceSpans {
				for _, ss := range rs.ScopeSpans {
					for _, s := range ss.Spans {
						spans++
						if strings.HasSuffix(s.Name, "/Echo") {
							echoes++
						}
						if s.EndTimeUnixNano < s.StartTimeUnixNano {
							backwards++
							fmt.Printf("clock: %s ends %s before it begins\n", s.Name, time.Duration(s.StartTimeUnixNano-s.EndTimeUnixNano))
						} else if d := time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano); d > 10*time.Minute {
							endless++
							fmt.Printf("clock: %s lasts %s\n", s.Name, d)
						}
						last = last || s.Name == "shim delete"
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if last && echoes >= calls {
			break
		}
	}
	fmt.Printf("clock: %d calls, %d spans, %d of calls, %d lost, %d backwards, %d endless, longest %d ms\n", calls, spans, echoes, lost, backwards, endless, longest.Milliseconds())
	return nil
}
