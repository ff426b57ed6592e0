package guard

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLastWords: what a process has said before it ended is heard, though it has not read
// all that it was told: a relay that leaves is not followed, and a connection that one has
// stored before it was killed is there for the next one.
func TestLastWords(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	err = errors.Join(
		sendPacket(fds[0], message{Type: typeChanged}), // not read
		sendPacket(fds[1], message{Type: typeRemove, Name: "conn/1"}),
		sendPacket(fds[1], message{Type: typeLeaving}),
		unix.Close(fds[1]),
	)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxPacket)
	for _, want := range []string{typeRemove, typeLeaving} {
		if m, _, err := receivePacket(fds[0], buf); m.Type != want || err != nil {
			t.Errorf("%q, %v, want %q", m.Type, err, want)
		}
	}
	if _, _, err := receivePacket(fds[0], buf); err != io.EOF {
		t.Error(err)
	}
}
