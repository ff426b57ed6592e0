package relay

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// TestAcceptedIsKept: the guard has a connection from when it is accepted to its end, once.
func TestAcceptedIsKept(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- guard.Run(ctx, guard.Options{Dir: dir, Logf: t.Logf}) }()
	defer func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}()
	var g guarded
	g.Register(guard.ClientOptions{Dir: dir, Who: guard.Registration{ID: "x", Program: "/bin/true", Args: []string{"true"}}, Logf: t.Logf})
	defer g.Leave()
	entries := func(want int) {
		t.Helper()
		shimtest.Eventually(t, "what the guard has", func() bool {
			_, all, err := guard.Ask(t.Context(), dir)
			return err == nil && len(all) == 1 && all[0].Entries == want
		})
	}
	entries(0)
	pair := func() net.Conn {
		f, _ := end(t)
		conn, err := net.FileConn(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	a, b, server := pair(), pair(), pair()
	g.accepted(a)
	g.accepted(b)
	entries(2)
	m, err := handover.New()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ended := g.begun(entryConn, connection{client: a, server: server, memory: m})
	g.ended(a) // which has begun
	g.ended(b)
	entries(1)
	ended()
	entries(0)
}

// TestAcceptedAndNoMore: a connection that a relay had accepted when it died is relayed by the
// next one.
func TestAcceptedAndNoMore(t *testing.T) {
	f, client := end(t)
	if _, err := connectionOf(guard.Received{Name: "request/1", Files: []*os.File{f}}); err == nil {
		t.Error("a request to the agent would go to the inner shim")
	}
	c, err := connectionOf(guard.Received{Name: "conn/1", Files: []*os.File{f}})
	if err != nil {
		t.Fatal(err)
	}
	inner := shimtest.Listen(t, filepath.Join(t.TempDir(), "inner"))
	defer inner.Close()
	p := &Process{Options: Options{Log: slog.New(slog.DiscardHandler)}, state: state.State{InnerSock: inner.Addr().String()}}
	p.guarded.resumedConnection(guard.Received{Name: "conn/1"}, c)
	over := make(chan struct{})
	go func() { defer close(over); p.resume(p.bytes(), c) }()
	_, werr := client.Write([]byte("to the shim"))
	_ = inner.SetDeadline(time.Now().Add(20 * time.Second))
	shim, err := inner.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = shim.SetDeadline(time.Now().Add(20 * time.Second))
	got := make([]byte, len("to the shim"))
	_, rerr := io.ReadFull(shim, got)
	if err := errors.Join(werr, rerr, client.Close(), shim.Close()); err != nil || string(got) != "to the shim" {
		t.Errorf("%q, %v", got, err)
	}
	<-over
	if name := p.guarded.name("conn"); name != "conn/2" {
		t.Errorf("the next one is %s", name)
	}
}

// TestGoesOnAfterAll: a connection that this process has accepted goes on here if another one
// was to take over and did not.
func TestGoesOnAfterAll(t *testing.T) {
	dir := t.TempDir()
	inner, front := shimtest.Listen(t, filepath.Join(dir, "inner")), shimtest.Listen(t, filepath.Join(dir, "front"))
	var serving sync.WaitGroup
	serving.Go(func() {
		shim, err := inner.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(shim, shim)
		shim.Close()
	})
	p := &Process{Options: Options{Log: slog.New(slog.DiscardHandler)}, untraced: true, listener: newListener(front), state: state.State{InnerSock: inner.Addr().String()}}
	p.accept(p.bytes())
	client, err := state.Dial(front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	echo := func() {
		t.Helper()
		got := make([]byte, len("to the shim and back"))
		_, werr := io.WriteString(client, "to the shim and back")
		_, rerr := io.ReadFull(client, got)
		if err := errors.Join(werr, rerr); err != nil || string(got) != "to the shim and back" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	echo()
	for range 3 {
		goOn, err := p.handOver(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		goOn()
		echo()
	}
	client.Close()
	serving.Wait()
	front.Close()
	inner.Close()
	p.serving.wait(20 * time.Second)
}
