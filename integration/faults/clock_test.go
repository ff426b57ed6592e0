package faults_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/integration/vm"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// TestClock sets the clock back and forth, by an hour and by a month, under a relay that
// works: in a guest, since it is the whole machine's.
func TestClock(t *testing.T) {
	bin, err := traced.Bin()
	check(t, err)
	programs := t.TempDir()
	check(t, vm.Build(t.Context(), programs, filepath.Join(traced.Root(), "integration/faults/clock")))
	g := vm.StartHybrid(t, vm.HybridOptions{
		Socket: filepath.Join(t.TempDir(), "vm.sock"),
		Files: map[string]string{
			"bin/clock":                          filepath.Join(programs, "clock"),
			"bin/containerd-shim-echo-traced-v2": filepath.Join(bin, "containerd-shim-traced-v2"),
			"bin/" + shimname.RelayProgram:       filepath.Join(bin, shimname.RelayProgram),
			"bin/containerd-shim-echo-v2":        filepath.Join(faults.EchoPath(t), "containerd-shim-echo-v2"),
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	out, err := g.Sh(ctx, "clock /bin/containerd-shim-echo-traced-v2")
	check(t, err)
	t.Logf("%s", out)
	var calls, spans, ofCalls, lost, backwards, endless, longest int
	_, err = fmt.Sscanf(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:], "clock: %d calls, %d spans, %d of calls, %d lost, %d backwards, %d endless, longest %d ms",
		&calls, &spans, &ofCalls, &lost, &backwards, &endless, &longest)
	check(t, err)
	if ofCalls != calls || lost+backwards+endless > 0 {
		t.Errorf("%s", out)
	}
	reliability.Row(t, reliability.Fault{
		Area: area, Fault: "the clock is set back and forth, by seconds, hours and a month (in a guest)",
		Load: &reliability.Load{Pods: 1, Calls: calls, Recorded: spans, LongestPause: time.Duration(longest) * time.Millisecond},
	})
}
