package interpose

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// used is how much this process uses of what a host rations.
type used struct{ inotify, descriptors, threads int }

func usage(t *testing.T) (u used) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			u.descriptors++
			if strings.Contains(to, "inotify") {
				u.inotify++
			}
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "Threads:")
	if _, err := fmt.Sscan(rest, &u.threads); err != nil {
		t.Fatal(err)
	}
	return u
}

// cpu returns the processor time that this process has used.
func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// TestHundredRelays: what the relays of a hundred pods do for their VMs, all of them
// being made at once as after a reboot, takes no inotify instance, no descriptor but of
// sockets in use, and no thread of its own. Two pods are on Cloud Hypervisor, one of them
// so late that nothing is expected any more; the rest are on QEMU.
func TestHundredRelays(t *testing.T) {
	const pods = 100
	dir := t.TempDir()
	vm := func(n int) string { return filepath.Join(dir, "vm", fmt.Sprint("pod", n), "clh.sock") }
	var patterns []listen.Pattern
	for _, p := range listen.DefaultPatterns() {
		p.Path = strings.Replace(p.Path, "/run/vc", dir, 1)
		p.Path = strings.Replace(p.Path, "/run/kata", filepath.Join(dir, "kata"), 1)
		patterns = append(patterns, p)
	}
	inner := start(t, nil, "vmm", filepath.Join(dir, "inner.sock")) // any process will do
	inner.Expect("listens")
	process, err := host.Proc("/proc").Process(inner.PID())
	if err != nil {
		t.Fatal(err)
	}
	arrived := make(chan string, pods)
	ctx, cancel := context.WithCancel(context.Background())
	finding, found := context.WithCancel(ctx)
	defer found()
	var running sync.WaitGroup
	before := usage(t)
	var paces []*vmmdir.Pace
	var interposers []*Interposer
	began := cpu()
	for n := range pods {
		id := fmt.Sprint("pod", n)
		pace := vmmdir.NewPace(0)
		pace.Idle = 200 * time.Millisecond
		paces = append(paces, pace)
		shim := &listen.Shim{Find: func() host.Process { return process }}
		h, err := listen.NewHybrid(id, listen.HybridOptions{Patterns: patterns, Owns: shim.Owns, Pace: pace}, func(conn listen.Conn, from listen.Origin) {
			conn.Close()
			arrived <- from.Sandbox
		})
		if err != nil {
			t.Fatal(err)
		}
		i, err := New(id, Options{Patterns: patterns, Owns: shim.Owns, Pace: pace, Relay: copyRelay})
		if err != nil {
			t.Fatal(err)
		}
		interposers = append(interposers, i)
		running.Go(func() { h.Serve(ctx) })
		running.Go(func() { i.Serve(ctx) })
		running.Go(func() { _, _ = listen.FindCID(finding, listen.CIDSource{Sandbox: id, Shim: shim, Pace: pace}) })
	}
	defer func() {
		cancel()
		running.Wait()
		for _, i := range interposers {
			_ = i.Close(context.Background())
		}
	}()
	const first, late = 41, 42
	for n := range pods {
		if n != late {
			if err := os.MkdirAll(filepath.Dir(vm(n)), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := time.Now()
	startVMM(t, vm(first))
	taken(t, vm(first))
	t.Logf("the place is taken %v after the VMM had its socket, beside %d others", time.Since(at).Round(100*time.Microsecond), pods-1)
	listening := func(n int) bool { _, err := os.Lstat(vm(n) + "_10240"); return err == nil }
	for n := range pods {
		if n != late {
			eventually(t, "somebody listens for the agent", func() bool { return listening(n) })
		}
	}
	// Of each one: its listener. Of the one on Cloud Hypervisor: the place, the VMM's
	// socket, and in this process the VMM itself.
	const sockets = pods - 1 + 3
	var now used
	eventually(t, "what was opened to look at is closed", func() bool {
		now = usage(t)
		return now.descriptors-before.descriptors <= sockets
	})
	t.Logf("%v of CPU time while all are made", cpu()-began)
	if now.inotify != before.inotify {
		t.Errorf("%d inotify instances", now.inotify-before.inotify)
	}
	if n := now.threads - before.threads; n > 24 {
		t.Errorf("%d threads more", n)
	}
	t.Logf("for %d relays %d inotify instances, %d descriptors, %d threads more", pods, now.inotify-before.inotify, now.descriptors-before.descriptors, now.threads-before.threads)

	for _, p := range paces {
		p.Settle()
	}
	found() // VMs have CIDs, or else the search becomes ever more seldom
	idle := cpu()
	const rest = 2 * time.Second
	time.Sleep(rest) // something to measure, nothing that is waited for
	share := float64(cpu()-idle) / float64(rest) * float64(paces[0].Idle) / float64(10*time.Second)
	t.Logf("when nothing is expected, at 10 s between looks: %.3f %% of a core", 100*share)

	if err := os.MkdirAll(filepath.Dir(vm(late)), 0o755); err != nil {
		t.Fatal(err)
	}
	startVMM(t, vm(late))
	taken(t, vm(late))
	eventually(t, "somebody listens for the late agent", func() bool { return listening(late) })
	conn, err := net.Dial("unix", vm(late)+"_10240")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	select {
	case got := <-arrived:
		if got != fmt.Sprint("pod", late) {
			t.Errorf("it is %s's", got)
		}
	case <-time.After(patience):
		t.Error("the late agent is not heard")
	}
	if n := usage(t).inotify - before.inotify; n != 0 {
		t.Errorf("%d inotify instances", n)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Processes",
		Fault: "a hundred pods with VMs are made at once, as after a reboot",
		Pod:   "nothing; their relays take no inotify instance, of which a user's processes have 128, and no descriptor or thread but for sockets in use",
		Lost:  "nothing; a VMM whose socket appears when nobody expects it any more is found as well",
	})
}
