package telemetry

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/disktest"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestEndOnAHungJournal: a relay whose disk answers nothing begins, and ends, in time.
func TestEndOnAHungJournal(t *testing.T) {
	cfg := config.Default()
	var release func()
	cfg.Journal.Dir, release = disktest.Hung(t)
	if !state.Within(30*time.Second, func() {
		tel := openHere(t, cfg)
		tel.endTime = 10 * time.Millisecond
		for range 5000 {
			_, span := tel.Tracer.Start(context.Background(), "call")
			span.End()
		}
		_ = tel.Queue.AppendSpans(nil, "agent's", (&span.Span{Name: "agent's"}).AppendElement(nil), 1)
		tel.Close(quiet(), export.Linger)
	}) {
		t.Error("it hangs")
	}
	release()
	testkit.Until(t, "who was left in the file system has ended", func() bool { return goleak.Find() == nil })
	reliability.Row(t, reliability.Fault{
		Area:  "Hangs",
		Fault: "the journal's file system answers nothing, from a relay's start to its end",
		Pod:   "nothing",
		Lost:  "everything; the relay's log says so",
	})
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openHere(t *testing.T, cfg config.Config) *Telemetry {
	t.Helper()
	tel, err := Open(cfg, state.Identity{Sandbox: "box", Inner: "containerd-shim-x-v2"}, quiet(), nil)
	if err != nil {
		t.Error(err)
	}
	return tel
}
