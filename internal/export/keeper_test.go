package export

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/keeper"
	"github.com/shimtrace/shimtrace/internal/keeper/keepertest"
)

// fakeShipper returns a configuration with a fake program as the shipper.
type fakeShipper struct {
	*keepertest.Tool
	cfg config.Config
}

func newFakeShipper(t *testing.T, commands string) *fakeShipper {
	t.Helper()
	f := &fakeShipper{Tool: keepertest.NewTool(t, keeper.KeptEnv, commands), cfg: config.Default()}
	f.cfg.Export.Endpoint = "http://127.0.0.1:1"
	f.cfg.Export.Shipper = f.Path
	f.cfg.Journal.Dir, f.cfg.Relay.StateDir = t.TempDir(), t.TempDir()
	return f
}

func TestShipperIsStarted(t *testing.T) {
	f := newFakeShipper(t, "exec sleep 1000")
	var l keepertest.Log
	k := NewKeeper(f.cfg, l.Printf)
	defer k.Close(0)
	k.EnsureShipped()
	eventually(t, "a shipper starts", func() bool { return len(f.Started(t)) > 0 })
	text, _ := os.ReadFile(f.Notes)
	if want := fmt.Sprintf("%d 3 collect\n", f.Started(t)[0]); string(text) != want || len(l.All()) != 0 {
		t.Errorf("started as %q, want %q; log %q", text, want, l.All())
	}
	if _, err := host.LockFile(CollectLock(f.cfg), unix.LOCK_EX, 0); !errors.Is(err, host.ErrLocked) {
		t.Errorf("the shipper does not hold the lock: %v", err)
	}
}

// TestOTLPEndpointIsStarted: the process is started without a collector, too, if the
// host has an OTLP endpoint.
func TestOTLPEndpointIsStarted(t *testing.T) {
	f := newFakeShipper(t, "exec sleep 1000")
	f.cfg.Export.Endpoint, f.cfg.OTLP.Listen = "", []string{"unix:/run/shimtrace/otlp.sock"}
	k := NewKeeper(f.cfg, t.Logf)
	defer k.Close(0)
	k.EnsureShipped()
	eventually(t, "the process starts", func() bool { return len(f.Started(t)) > 0 })
}

func TestShipperIsMissing(t *testing.T) {
	t.Setenv("PATH", "/nonexistent")
	cfg := config.Default()
	cfg.Relay.StateDir = t.TempDir()
	var l keepertest.Log
	s := NewKeeper(cfg, l.Printf)
	s.EnsureShipped()
	if len(l.All()) != 0 {
		t.Errorf("without an endpoint: %q", l.All())
	}
	if _, err := os.Stat(CollectLock(cfg)); err == nil {
		t.Error("without an endpoint the lock is looked at")
	}
	s.Close(0)

	cfg.Export.Endpoint = "http://127.0.0.1:1"
	s = NewKeeper(cfg, l.Printf)
	defer s.Close(0)
	for range 10 {
		s.EnsureShipped()
	}
	if lines := l.All(); len(lines) != 1 || !strings.Contains(lines[0], "export.shipper") {
		t.Errorf("log %q", lines)
	}
}

func TestClientEnsuresAfterAppend(t *testing.T) {
	f := newFakeShipper(t, "exec sleep 1000")
	j, err := journal.Open(f.cfg.Journal.Dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	s := NewKeeper(f.cfg, t.Logf)
	defer s.Close(0)
	if err := s.Client(j).AppendSpans(nil, "", nil, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a shipper starts", func() bool { return len(f.Started(t)) == 1 })
}
