package standby

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func TestMain(m *testing.M) { shimtest.Main(m) }

const patience = testkit.Patience

// link returns both ends, without a process between.
func link(t *testing.T) (*Standby, *Starter) {
	t.Helper()
	ours, theirs, err := host.UnixPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := host.UnixConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); conn.Close() })
	return &Standby{conn: ours}, &Starter{conn}
}

// TestRelay: a relay says that it is ready, gets the sockets, and hears whether containerd
// knows of it.
func TestRelay(t *testing.T) {
	for _, answered := range []bool{true, false} {
		standby, starter := link(t)
		got := make(chan state.State, 1)
		over := make(chan bool, 1)
		go func() {
			starter.Ready(state.State{Sandbox: "pod"}, nil)
			err := starter.Serve(Orders{Relay: func(st state.State, listener, sentinel *os.File) {
				defer sentinel.Close()
				if l, err := host.UnixListener(listener); err != nil {
					t.Error(err)
				} else {
					l.Close()
				}
				got <- st
				over <- starter.Answered()
			}})
			if err != nil {
				t.Error(err)
			}
		}()
		st, err := standby.Ready(patience)
		if err != nil || st.Sandbox != "pod" {
			t.Fatalf("ready: %+v, %v", st, err)
		}
		path := filepath.Join(t.TempDir(), "s")
		l := shimtest.Listen(t, path)
		inner, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		st.InnerSock = path
		if err := standby.Relay(st, l, inner.(*net.UnixConn)); err != nil {
			t.Fatal(err)
		}
		l.Close()
		inner.Close()
		if st := <-got; st.InnerSock != path || st.Sandbox != "pod" {
			t.Errorf("it relays %+v", st)
		}
		if answered {
			standby.Answered()
		}
		standby.conn.Close()
		if <-over != answered {
			t.Errorf("answered: %t", !answered)
		}
	}
}

// TestNotReady: why a relay cannot go on is said, also by one that has ended.
func TestNotReady(t *testing.T) {
	standby, starter := link(t)
	starter.Ready(state.State{}, errors.New("no room"))
	if _, err := standby.Ready(patience); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("got %v", err)
	}
	starter.conn.Close()
	if _, err := standby.Ready(patience); err == nil || !strings.Contains(err.Error(), "it died") {
		t.Errorf("got %v", err)
	}
	var none *Standby
	if err := errors.Join(none.Record(nil, 0), none.Restore(nil, 0)); err == nil {
		t.Error("no process records")
	}
	none.Answered()
	none.Discard()
}

// TestRecord: a recording is made once its starter has ended, or at once if it waits.
func TestRecord(t *testing.T) {
	for _, wait := range []time.Duration{0, patience} {
		standby, starter := link(t)
		made := make(chan string, 1)
		over := make(chan error, 1)
		go func() {
			over <- starter.Serve(Orders{
				Restore: func(st *state.State) error { return errors.New("not " + st.Sandbox + "'s") },
				Record: func(r *Recording) error {
					made <- r.Container
					return nil
				},
			})
		}()
		if err := standby.Restore(&state.State{Sandbox: "pod"}, patience); err == nil || err.Error() != "not pod's" {
			t.Errorf("restore: %v", err)
		}
		r := &Recording{Container: "c1", Response: make([]byte, 2*maxResponse)}
		if err := standby.Record(r, wait); err != nil || len(r.Response) != maxResponse {
			t.Errorf("record: %v, %d bytes of the response", err, len(r.Response))
		}
		if got := <-made; got != "c1" {
			t.Errorf("made of %q", got)
		}
		if err := <-over; err != nil {
			t.Error(err)
		}
	}
}

// TestTooMuch: what does not fit is an error on the side that would wait for it.
func TestTooMuch(t *testing.T) {
	standby, starter := link(t)
	over := make(chan error, 1)
	go func() { over <- starter.Serve(Orders{Record: func(*Recording) error { return nil }}) }()
	r := &Recording{Container: strings.Repeat("x", 2*maxPacket)}
	if err := standby.Record(r, patience); err == nil {
		t.Error("it is recorded")
	}
	<-over
}
