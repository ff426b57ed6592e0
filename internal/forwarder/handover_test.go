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
	const least = 3 // forwarders
	begun := make(chan struct{}, least)
	sent := make(chan error, 1)
	go func() {
		r := rand.New(rand.NewPCG(1, 2))
		waits := least
		for rest := data; len(rest) > 0; {
			for waits > 0 && len(rest) <= len(data)*waits/(least+1) { // each of these gets a part
				<-begun
				waits--
			}
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
		if forwarders < least {
			begun <- struct{}{}
		}
		select {
		case <-ended:
			over = true
		case <-time.After(3 * time.Millisecond):
			kept.Leave()
			if err := closeForwarder(f); err != nil { // it has left, and delivered all that it has
				t.Error(err)
			}
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
	clean := false
	for i, err := range sink.ended("p") {
		// One that is to leave may have seen the agent's end already, which the next one sees
		// again.
		clean = clean || err == nil
		if clean != (err == nil) || !clean && (i == forwarders-1 || !errors.Is(err, errClosed)) {
			t.Errorf("forwarder %d of %d ended with %v", i, forwarders, err)
		}
	}
	if n := len(sink.spans["p"]); n != spansPod || forwarders < least {
		t.Errorf("%d spans of %d by %d forwarders", n, spansPod, forwarders)
	}
}
