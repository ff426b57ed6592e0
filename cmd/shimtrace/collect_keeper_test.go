package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/disktest"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
	local "github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/keeper"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// kept is an endpoint that relays keep, as in production: whoever starts the process
// opens the port.
type kept struct {
	state, at, url string

	mu  sync.Mutex
	log []string
}

func newKept(t *testing.T) *kept {
	t.Helper()
	config, state, at := receiveConfig(t)
	file := filepath.Join(state, "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SHIMTRACE_CONFIG", file)
	t.Setenv(asToolEnv, "1") // for the processes that are started
	if err := route.MakeDir(filepath.Join(state, "collect")); err != nil {
		t.Fatal(err)
	}
	k := &kept{state: state, at: at, url: "http://" + at + endpoint.Path}
	t.Cleanup(func() {
		for _, pid := range k.processes(t) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
	return k
}

// keeper returns a relay's keeper.
func (k *kept) keeper(t *testing.T) *keeper.Keeper {
	of := keeper.New(keeper.Options{
		Lock:    filepath.Join(k.state, "collect", "lock"),
		Program: os.Executable,
		Args:    []string{"collect"},
		Files: func() ([]*os.File, error) {
			l, err := net.Listen("tcp", k.at)
			if err != nil {
				return nil, err
			}
			defer l.Close()
			f, err := l.(*net.TCPListener).File()
			return []*os.File{f}, err
		},
		StartTime: forwardPatience, // a busy machine starts the race detector in more than the default
		Every:     100 * time.Millisecond,
		Awaited:   true,
		Killing: func(string) func() {
			return route.Ending(filepath.Join(k.state, "collect"), []string{k.at}, func(err error) { t.Error(err) })
		},
		Without: "no spans come", Name: "endpoint",
		Logf: func(format string, args ...any) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.log = append(k.log, fmt.Sprintf(format, args...))
		},
	})
	t.Cleanup(func() { of.Close(0) })
	return of
}

func (k *kept) logged() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.log...)
}

// processes returns the holders of the endpoint's lock: running children of this
// process.
func (k *kept) processes(t *testing.T) (pids []int) {
	t.Helper()
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if strings.HasSuffix(string(line), "\x00collect\x00") && strings.Contains(string(env), k.state) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// TestCollectReplaced: relays start one process for the host, and another one when it
// is killed; each gets the posts from then on.
func TestCollectReplaced(t *testing.T) {
	k := newKept(t)
	pods := load(t, goPod, rustPod)
	var relays []*fakeRelay
	for _, p := range pods {
		of := k.keeper(t)
		of.Ensure()
		// The port is open before the process runs: no post is refused.
		conn, err := net.Dial("tcp", k.at)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		relays = append(relays, linkRelay(t, k.state, p.sandbox, of.Ensure))
	}
	pods[0].postAll(t, k.url)
	eventually(t, "they arrive", func() bool { return len(relays[0].got()) == len(pods[0].spans) })
	relays[0].gets(t, pods[0].spans)
	first := k.processes(t)
	if len(first) != 1 {
		t.Fatalf("processes %v", first)
	}

	// As if it had run for a while: a process that dies young is replaced more slowly.
	if err := os.Chtimes(filepath.Join(k.state, "collect", "lock"), time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if err := unix.Kill(first[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the port is open again", func() bool {
		conn, err := net.Dial("tcp", k.at)
		if err == nil {
			conn.Close()
		}
		pids := k.processes(t)
		return err == nil && len(pids) == 1 && pids[0] != first[0]
	})
	t.Logf("the port was open again after %v", time.Since(killed))
	pods[1].postAll(t, k.url)
	t.Logf("and had taken %d posts after %v", len(pods[1].bodies), time.Since(killed))
	eventually(t, "they arrive", func() bool { return len(relays[1].got()) == len(pods[1].spans) })
	relays[1].gets(t, pods[1].spans)
	// The relay lost none of its spans, and goes on.
	client := pods[0].client(t)
	if err := pods[0].post(client, k.url, pods[0].bodies[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other relay gets on, too", func() bool { return len(relays[0].got()) == len(pods[0].spans)+1 })
}

// TestCollectStopped: while the process is stopped, posts wait for the next one, for no
// longer than its start takes. The Go runtime's exporter has no timeout.
func TestCollectStopped(t *testing.T) {
	k := newKept(t)
	p := load(t, goPod)[0]
	of := k.keeper(t)
	of.Ensure()
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { of.Watch(ctx) })
	defer watching.Wait()
	defer cancel()
	relay := linkRelay(t, k.state, p.sandbox, of.Ensure)
	p.postAll(t, k.url)
	eventually(t, "they arrive", func() bool { return len(relay.got()) == len(p.spans) })
	first := k.processes(t)
	testkit.Stop(t, first[0])
	// A post to the stopped process ends with it; the next post is taken.
	const hang = 30 * time.Second
	began := time.Now()
	client := &http.Client{Timeout: hang, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		err := p.post(client, k.url, p.bodies[0])
		if err == nil {
			break
		}
		if time.Since(began) > hang {
			t.Fatalf("posts hang: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("a post was taken after %v", time.Since(began))
	if now := k.processes(t); len(now) != 1 || now[0] == first[0] {
		t.Errorf("processes %v, before %v", now, first)
	}
	eventually(t, "its spans arrive", func() bool { return len(relay.got()) > len(p.spans) })
	// On a busy machine its end may take as long as if it were stuck.
	if log := strings.Join(k.logged(), "\n"); !strings.Contains(log, fmt.Sprintf("process %d, is stopped", first[0])) {
		t.Errorf("log %q", log)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Processes",
		Fault: "`shimtrace collect` is stopped (SIGSTOP)",
		Pod:   "the spans that its runtime ends meanwhile take up to a second: the relays replace the process",
		Lost:  "what the stopped process had, and the posts that waited for it",
	})
}

// TestCollectStuck: a process killed while a disk hangs in one of its threads does not
// end, and its sockets stay open. Nobody waits for it all the same.
func TestCollectStuck(t *testing.T) {
	disk, freeze, thaw := disktest.Ext4(t)
	t.Cleanup(thaw)
	k := newKept(t)
	uploading, frozen := make(chan struct{}, 1), make(chan struct{})
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case uploading <- struct{}{}:
		default:
		}
		<-frozen
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	}))
	t.Cleanup(collector.Close)
	file := filepath.Join(k.state, "config.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(disk, "journal")
	config := strings.Replace(string(text), strconv.Quote(filepath.Join(k.state, "journal")), strconv.Quote(dir), 1) +
		fmt.Sprintf("[export]\nendpoint = %q\n", collector.URL)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	record(t, dir)
	of := k.keeper(t)
	of.Ensure()
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { of.Watch(ctx) })
	defer watching.Wait()
	defer cancel()
	<-uploading
	freeze()
	close(frozen) // the process writes how far it has come
	pid := k.processes(t)[0]
	eventually(t, "a thread of it hangs", func() bool {
		for _, thread := range local.Proc("/proc").Threads(pid) {
			if thread.State == 'D' {
				return true
			}
		}
		return false
	})
	p := load(t, goPod)[0]
	client := p.client(t)
	eventually(t, "posts are taken nonetheless", func() bool { return p.post(client, k.url, p.bodies[0]) == nil })
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	longest := time.Duration(0)
	for n := range 10 {
		began := time.Now()
		if err := p.post(client, k.url, p.bodies[0]); err == nil {
			t.Errorf("post %d was answered", n)
		}
		longest = max(longest, time.Since(began))
	}
	t.Logf("ten posts failed, the longest wait was %v", longest)
	if longest > 10*time.Second { // a second, on a machine with nothing else to do
		t.Errorf("a post waited for %v", longest)
	}
	thaw()
	eventually(t, "another process is there", func() bool {
		now := k.processes(t)
		return len(now) == 1 && now[0] != pid && p.post(client, k.url, p.bodies[0]) == nil
	})
	reliability.Row(t, reliability.Fault{
		Area: "Hangs", Fault: "`shimtrace collect` is killed while its disk hangs, and so does not end",
		Pod: "waits of a second at most: its connections are reset, again and again", Lost: "what it had, as `runtime: endpoint_gone`, and what is posted until the disk goes on",
	})
}

// TestCollectPortTaken: whoever has the port keeps it and is reported once; when the
// port is free, the endpoint opens.
func TestCollectPortTaken(t *testing.T) {
	k := newKept(t)
	other, err := net.Listen("tcp", k.at)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })}
	go func() {
		defer close(served)
		_ = server.Serve(other)
	}()
	p := load(t, goPod)[0]
	of := k.keeper(t)
	relay := linkRelay(t, k.state, p.sandbox, of.Ensure)
	eventually(t, "it is said", func() bool { return len(k.logged()) > 0 })
	for range 100 {
		of.Ensure()
	}
	if log := k.logged(); len(log) != 1 || !strings.Contains(log[0], "address already in use") {
		t.Errorf("log %q", log)
	}
	if pids := k.processes(t); len(pids) > 0 {
		t.Errorf("processes %v", pids)
	}
	client := p.client(t)
	if err := p.post(client, k.url, p.bodies[0]); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("the port's owner was disturbed: %v", err)
	}
	client.CloseIdleConnections()
	server.Close()
	<-served
	eventually(t, "the endpoint is opened", func() bool { return len(k.processes(t)) == 1 })
	p.postAll(t, k.url)
	eventually(t, "the spans arrive", func() bool { return len(relay.got()) == len(p.spans) })
	relay.gets(t, p.spans)
}

// TestCollectLeftovers: the files of a killed process block nobody.
func TestCollectLeftovers(t *testing.T) {
	r := startReceive(t)
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
	if _, err := os.Lstat(filepath.Join(r.state, "collect", "link.sock")); errors.Is(err, os.ErrNotExist) {
		t.Fatal("nothing was left behind")
	}
	again := newTool(t, fmt.Sprintf("[relay]\nstate_dir = %q\n[journal]\ndir = %q\n", r.state, filepath.Join(r.state, "journal")), "collect", "--listen", r.at)
	again.start()
	again.says("runtimes may post")
	p := load(t, rustPod)[0]
	relay := linkRelay(t, r.state, p.sandbox, func() {})
	p.postAll(t, r.url)
	relay.arrives(t, p.spans)
	relay.leave()
	again.stop()
}

// TestCollectKilledIsCounted: the next process counts what a killed one held.
func TestCollectKilledIsCounted(t *testing.T) {
	r := startReceive(t)
	p := load(t, rustPod)[0]
	p.postAll(t, r.url) // of a sandbox that has no relay
	eventually(t, "all is decoded", func() bool { return pendingOf(t, r.state) == uint64(len(p.spans)) })
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
	again := newTool(t, fmt.Sprintf("[relay]\nstate_dir = %q\n[journal]\ndir = %q\n", r.state, filepath.Join(r.state, "journal")), "collect", "--listen", r.at)
	again.start()
	again.says(fmt.Sprintf("killed when it had %d spans", len(p.spans)))
	again.stop()
	if lost := drops(t, r.state); len(lost) != 1 || lost["runtime: endpoint_gone"] != len(p.spans) {
		t.Errorf("lost %v", lost)
	}
	if n := pendingOf(t, r.state); n != 0 {
		t.Errorf("%d spans are left for the next", n)
	}
	reliability.Row(t, reliability.Fault{
		Area: "Processes", Fault: "the endpoint for runtimes' spans is killed",
		Pod: "nothing: posts are refused until a relay has opened the port again", Lost: "what it had, counted by the next as `runtime: endpoint_gone`; what is posted in between is refused and not counted",
	})
}

// pendingOf returns what an endpoint holds.
func pendingOf(t *testing.T, state string) uint64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(state, "collect", "pending"))
	if err != nil || len(b) != 16 {
		t.Fatalf("%x, %v", b, err)
	}
	return binary.NativeEndian.Uint64(b)
}

// TestCollectOnAHungJournal: posts are taken, and the process ends, while the journal's
// file system hangs.
func TestCollectOnAHungJournal(t *testing.T) {
	dir, release := disktest.Hung(t)
	config, state, at := receiveConfig(t)
	config = strings.Replace(config, strconv.Quote(filepath.Join(state, "journal")), strconv.Quote(dir), 1)
	r := &receiving{newTool(t, config, "collect"), state, at, "http://" + at + endpoint.Path}
	r.start()
	r.says("runtimes may post to " + r.url)
	p := load(t, rustPod)[0]
	relay := r.relay(t, p.sandbox)
	p.postAll(t, r.url)
	eventually(t, "its spans arrive", func() bool { return len(relay.got()) == len(p.spans) })
	relay.leave()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.cmd.Process.Signal(unix.SIGTERM)
		_ = r.cmd.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("it does not end")
		_ = r.cmd.Process.Kill()
		<-ended
	}
	release()
	reliability.Row(t, reliability.Fault{
		Area:  "Hangs",
		Fault: "the journal's file system answers nothing while `shimtrace collect` receives",
		Pod:   "nothing",
		Lost:  "counts of what the endpoint loses meanwhile",
	})
}
