package interpose

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
)

// TestPanicTakingAPlace: after a panic on the way to the place it is tried again.
func TestPanicTakingAPlace(t *testing.T) {
	pattern, v := vmmAt(t)
	var log lines
	var once atomic.Bool
	interposer(t, pattern, Options{Warn: log.warn, step: func(at string) {
		if at == "bound" && once.CompareAndSwap(false, true) {
			panic("a bug")
		}
	}})
	taken(t, v.path)
	mustConverse(t, v.path)
	if !strings.Contains(log.String(), "panic: a bug") {
		t.Errorf("the log has: %s", &log)
	}
}

// TestPanic: a panic anywhere costs only its own connection. The next one is served, and
// nothing is left open.
func TestPanic(t *testing.T) {
	for _, step := range []string{"accepted", "dialed", "answers", "relay"} {
		t.Run(step, func(t *testing.T) {
			pattern, v := vmmAt(t)
			var log lines
			var once atomic.Bool
			fail := func(at string) {
				if at == step && once.CompareAndSwap(false, true) {
					panic("a bug")
				}
			}
			i, stop := interposer(t, pattern, Options{
				step:  fail,
				Warn:  log.warn,
				Relay: copyRelayAfter(func() { fail("relay") }),
			})
			taken(t, v.path)
			conn := dial(t, v.path)
			_, _ = io.WriteString(conn, "CONNECT 1024\n")
			if rest, err := io.ReadAll(conn); err == nil && strings.TrimPrefix(string(rest), "OK 1073741824\n") != "" {
				t.Errorf("after the panic: %q", rest)
			}
			mustConverse(t, v.path)
			eventually(t, "the panic is reported", func() bool { return strings.Contains(log.String(), "panic: a bug") })
			stop() // fails if something is left
			if got := i.Counts().Relayed; got == 0 {
				t.Error("nothing was relayed")
			}
		})
	}
}

func copyRelayAfter(f func()) func(client, server net.Conn) {
	return func(client, server net.Conn) {
		f()
		copyRelay(client, server)
	}
}
