package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
)

// memoryOf returns a process's resident memory and its anonymous part, in kB.
func memoryOf(t *testing.T, pid int) (resident, anonymous int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &resident)
		_, _ = fmt.Sscanf(line, "RssAnon: %d kB", &anonymous)
	}
	return resident, anonymous
}

// TestCollectMemory: the memory of a burst returns to the system afterwards. It runs
// the tool as built: a test binary or the race detector would differ.
func TestCollectMemory(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "shimtrace")
	if out, err := exec.Command("go", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the tool: %v\n%s", err, out)
	}
	config, state, at := receiveConfig(t)
	r := &receiving{newTool(t, config, "collect"), state, at, "http://" + at + endpoint.Path}
	r.cmd.Path = tool
	r.start()
	r.says("runtimes may post to " + r.url)
	pods := load(t, goPod, rustPod)
	_, fresh := memoryOf(t, r.cmd.Process.Pid)
	var relays []*fakeRelay
	for _, p := range pods {
		relays = append(relays, r.relay(t, p.sandbox))
	}
	// On a busy machine the memory may begin to go back before the last spans have arrived.
	all, burst := 0, 0
	look := func() {
		if now, anonymous := memoryOf(t, r.cmd.Process.Pid); anonymous > burst {
			all, burst = now, anonymous
		}
	}
	for range 5 { // as five pods of each that start together
		for _, p := range pods {
			p.postAll(t, r.url)
			look()
		}
	}
	for i, p := range pods {
		eventually(t, "they arrive", func() bool {
			look()
			return len(relays[i].got()) == 5*len(p.spans)
		})
	}
	t.Logf("at its height: %d kB, %d of them anonymous; %d when it had begun", all, burst, fresh)
	var idle int
	eventually(t, "it goes back", func() bool {
		time.Sleep(100 * time.Millisecond)
		all, idle = memoryOf(t, r.cmd.Process.Pid)
		return idle <= fresh+(burst-fresh)*3/4
	})
	t.Logf("idle: %d kB, %d of them anonymous", all, idle)
	r.stop()
}
