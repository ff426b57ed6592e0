package host

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestAcceptAll: failures are reported and survived, connections are handed on, and the end
// of the listener, or of the context, is the end.
func TestAcceptAll(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tests := []struct {
		name string
		last error // what accept returns at last
		end  func()
		want error
	}{
		{"closed", &net.OpError{Op: "accept", Err: net.ErrClosed}, func() {}, nil},
		{"deadline", &net.OpError{Op: "accept", Err: os.ErrDeadlineExceeded}, func() {}, nil},
		{"canceled", syscall.EMFILE, cancel, context.Canceled},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var calls, taken, told int
			err := AcceptAll(ctx, func() (int, error) {
				switch calls++; {
				case calls < 3:
					return calls, nil
				case calls == 3:
					return 0, syscall.EMFILE
				}
				test.end()
				return 0, test.last
			}, func(int) { taken++ }, func(err error) {
				if told++; !errors.Is(err, syscall.EMFILE) {
					t.Errorf("told of %v", err)
				}
			})
			if !errors.Is(err, test.want) || calls != 4 || taken != 2 || told != 1 {
				t.Errorf("%v after %d accepts, %d connections and %d reports", err, calls, taken, told)
			}
		})
	}
}

// TestLingering: who waits when the deadline has passed is accepted, and nobody is waited for.
func TestLingering(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 {
		client, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
	}
	if err := l.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	accept := Lingering(l)
	for n := range 3 {
		conn, err := accept()
		if err != nil {
			t.Fatalf("client %d: %v", n, err)
		}
		conn.Close()
	}
	if _, err := accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nobody waits, but: %v", err)
	}
}
