package forwarder

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/handover"
)

// TestAnotherGoesOn: Forwarders read an agent's connection one after another, each from the
// byte where the previous one left. Every span arrives once, and the agent notices nothing.
func TestAnotherGoesOn(t *testing.T) {
	data := captured.Frames(t, capturePod)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	agent, relays := os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "relays")
	sent := make(chan error, 1)
	go func() {
		r := rand.New(rand.NewPCG(1, 2))
		for rest := data; len(rest) > 0; {
			n := min(1+r.IntN(9000), len(rest))
			if _, err := agent.Write(rest[:n]); err != nil {
				sent <- err
				return
			}
			rest = rest[n:]
			time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
		}
		sent <- agent.Close()
	}()
	sink := newRecord()
	var memory *os.File
	ended := make(chan struct{})
	forwarders := 0
	for over := false; !over; forwarders++ {
		f := forward(t, sink, Limits{})
		m, err := handover.New()
		if memory != nil {
			m.Close()
			m, err = handover.Open(memory)
		}
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.FcntlInt(m.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		memory = os.NewFile(uintptr(fd), "memory")
		conn, err := net.FileConn(relays)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := handover.Receive(conn.(handover.Conn), m, func() { close(ended) })
		if err != nil {
			t.Fatal(err)
		}
		f.Take(kept, pod("p"))
		select {
		case <-ended:
			over = true
		case <-time.After(3 * time.Millisecond):
			kept.Leave()
			eventually(t, "it has left", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				for _, s := range f.sandboxes {
					if len(s.open) > 0 {
						return false
					}
				}
				return true
			})
			select {
			case <-ended:
				over = true
			default:
				conn.Close()
				_ = m.Close()
			}
		}
	}
	memory.Close()
	relays.Close()
	if err := <-sent; err != nil {
		t.Error(err)
	}
	eventually(t, "all is delivered", func() bool { return len(sink.ended("p")) == forwarders })
	for i, err := range sink.ended("p") {
		if last := i == forwarders-1; last != (err == nil) || !last && !errors.Is(err, errClosed) {
			t.Errorf("forwarder %d of %d ended with %v", i, forwarders, err)
		}
	}
	if n := len(sink.spans["p"]); n != spansPod || forwarders < 3 {
		t.Errorf("%d spans of %d by %d forwarders", n, spansPod, forwarders)
	}
}
