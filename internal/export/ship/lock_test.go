package ship

import (
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/internal/export/journal"
)

// TestHolderAnswersPings: who ships is known to live by that, and who waits for the lock
// does not answer in its place.
func TestHolderAnswersPings(t *testing.T) {
	dir := t.TempDir()
	lock, err := acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acquire(dir); !errors.Is(err, ErrHeld) {
		t.Errorf("a second one ships: %v", err)
	}
	socket := filepath.Join(dir, journal.ShipLockName+".ping")
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n != 1 {
		t.Errorf("no answer: %v", err)
	}
	lock.Close()
	if _, err := net.Dial("unix", socket); err == nil {
		t.Error("it answers without the lock")
	}
}
