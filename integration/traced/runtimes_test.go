package traced_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
)

// runtimePod is the sandbox whose runtime's posts were captured; see
// forwarder/endpoint/testdata.
const runtimePod = "c58a3c91474f5b4adc5a4b96701e44718fa3e3a0c1efd2b7543410d75050244f"

// dialIn connects to an address in a rig's network namespace.
func dialIn(r *rig.Rig, address string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread is not fit for anything else
		var ns *os.File
		if ns, err = os.Open(r.NetNS()); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			conn, err = net.DialTimeout("tcp", address, time.Minute)
		}
	}()
	<-done
	return conn, err
}

// TestRuntimesEndpoint: the first relay that wants it opens the host's endpoint, one
// process has it for all, another one when that dies; what a sandbox's runtime posts
// ends up in that sandbox's trace.
func TestRuntimesEndpoint(t *testing.T) {
	t.Parallel()
	tool, err := traced.ImpatientShipper(t.TempDir())
	check(t, err)
	in := traced.Start(t, traced.Options{
		Options: rig.Options{Version: rig.V24},
		Config:  "[jaeger]\nreceive = 'on'\n[export]\nshipper = '" + tool + "'\n",
	})
	r := in.Rig
	endpoints := func() (found []rig.Process) {
		for _, p := range r.Processes() {
			if len(p.Args) > 1 && p.Args[1] == "collect" {
				found = append(found, p)
			}
		}
		return found
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		return dialIn(r, address)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	post := func(body []byte) (err error) {
		answer, err := client.Post("http://127.0.0.1:276/api/traces", "application/vnd.apache.thrift.binary", bytes.NewReader(body))
		if err == nil {
			answer.Body.Close()
		}
		return err
	}
	run := func(id string) {
		t.Helper()
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, id, "sleep", "1000").Check())
	}

	posts := captured.Posts(t, captured.Rust)
	run("another")
	run(runtimePod)
	half := len(posts) / 2
	for _, body := range posts[:half] {
		check(t, post(body))
	}
	first := endpoints()
	if len(first) != 1 {
		t.Fatalf("endpoints %v, want one", first)
	}
	// What it has, it hands on at once.
	until(t, "the spans to be recorded", func() bool {
		spans, err := in.Spans()
		check(t, err)
		return slices.ContainsFunc(spans, ofRuntime)
	})
	check(t, syscall.Kill(first[0].PID, syscall.SIGKILL))
	transport.CloseIdleConnections()
	until(t, "another endpoint", func() bool {
		now := endpoints()
		return len(now) == 1 && now[0].PID != first[0].PID
	})
	for _, body := range posts[half:] {
		check(t, post(body))
	}
	transport.CloseIdleConnections()
	for _, id := range []string{runtimePod, "another"} {
		check(t, r.Ctr("task", "rm", "--force", id).Check())
		check(t, r.Ctr("container", "rm", id).Check())
	}
	spans := settled(t, in)
	until(t, "the endpoint to end for want of relays", func() bool { return len(endpoints()) == 0 })

	root := ""
	for _, s := range otlprecv.Named(spans, "sandbox start") {
		if s.Resource["shimtrace.sandbox.id"] == runtimePod {
			root = s.TraceID
		}
	}
	n := 0
	for _, s := range spans {
		if !ofRuntime(s) {
			continue
		}
		n++
		if s.TraceID != root || s.Resource["shimtrace.sandbox.id"] != runtimePod {
			t.Errorf("%s is in trace %s of %v, want %s", s.Name, s.TraceID, s.Resource["shimtrace.sandbox.id"], root)
		}
	}
	if n == 0 {
		t.Error("none of the runtime's spans is in the journal")
	}
}

func ofRuntime(s otlprecv.Span) bool { return s.Service() == "kata-runtime" }
