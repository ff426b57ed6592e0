package relay

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/disktest"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// frozenTime is when a test says that something hangs.
const frozenTime = 30 * time.Second

// TestCallsDoNotWaitForTheJournal: with its disk frozen, the relay answers calls and
// takes the agent's spans; what fits is written when the disk is back.
func TestCallsDoNotWaitForTheJournal(t *testing.T) {
	dir, freeze, thaw := disktest.Ext4(t)
	cfg := config.Default()
	cfg.Journal.Dir = filepath.Join(dir, "journal")
	s, dial, end := relayed(t, cfg)
	if _, err := s.switcher.on(alice, time.Hour); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	tel, err := telemetry.Open(cfg, state.Identity{Sandbox: "box", Inner: "containerd-shim-x-v2"}, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	freeze()
	const calls, batches = 100, 3000
	called := state.Within(frozenTime, func() {
		c := dial()
		for i := range calls {
			if err := pause(c, fmt.Sprint("c", i)); err != nil {
				t.Error(err)
			}
		}
		for range batches {
			_ = tel.Queue.AppendSpans(nil, "agent's", (&span.Span{Name: "agent's"}).AppendElement(nil), 1)
		}
	})
	thaw()
	end()
	tel.Close(log, 0)
	if !called {
		t.Fatal("calls wait for the disk")
	}
	var names string
	drops := make(map[string]int)
	if _, err := journal.Scan(cfg.Journal.Dir, func(r journal.Record) error {
		if r.Kind != journal.KindDrops {
			return nil
		}
		d, err := r.Drops()
		for reason, n := range d {
			drops[reason] += n
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	names = strings.Join(shimtest.SpanNames(cfg.Journal.Dir), ",")
	if n := strings.Count(names, "Task/Pause"); n != calls {
		t.Errorf("%d of %d calls are there", n, calls)
	}
	if n := strings.Count(names, "agent's"); n == 0 || n+drops["queue_full"] != batches || len(drops) != 1 {
		t.Errorf("%d spans of the agent of %d, dropped %v", n, batches, drops)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Hangs",
		Fault: "the journal's file system is frozen while a relay relays calls and receives the agent's spans",
		Pod:   "nothing",
		Lost:  "what does not fit into a queue of 2048 spans: `queue_full`",
	})
}
