package command

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLogNeverBlocks fills the pipe of a containerd that reads no more.
func TestLogNeverBlocks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	log := OpenLog(dir, slog.LevelDebug, "id", "c1")
	log.Warn("first line", "error", "boom")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 {
			log.Debug(strings.Repeat("x", 200))
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("logging waits for a reader")
	}
	buf := make([]byte, 4096)
	n, err := reader.Read(buf)
	if err != nil || !strings.Contains(string(buf[:n]), `msg="first line" component=shimtrace id=c1 error=boom`) {
		t.Errorf("log has %q, %v", buf[:n], err)
	}
}

func TestLogWithoutPipe(t *testing.T) {
	OpenLog(t.TempDir(), slog.LevelInfo).Error("to nobody")
}
