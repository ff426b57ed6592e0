package guard

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestKilled: a relay is killed, again and again. Its connections go on, one that is made
// meanwhile waits for the next relay, and its state comes along.
func TestKilled(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	socket, _ := h.relay("relay")
	a, b := connect(t, socket), connect(t, socket)
	call(t, a, "first")
	call(t, b, "first")
	s := h.registered(socket, func(s Status) bool { return s.Entries == 4 })
	for i := range 5 {
		began := time.Now()
		if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		call(t, a, "again")
		t.Logf("answered %v after the kill", time.Since(began))
		call(t, b, "again")
		call(t, connect(t, socket), "new")
		s = h.registered(socket, func(now Status) bool { return now.PID != s.PID && now.Resumed == i+1 })
		if s.Cause != Killed {
			t.Errorf("resumed since it was %q", s.Cause)
		}
	}
}

// TestKilledAtOnce: also one that has not lived for long.
func TestKilledAtOnce(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	socket, _, c, s := h.relaying()
	for range 20 {
		_ = unix.Kill(s.PID, unix.SIGKILL)
		s = h.registered(socket, func(now Status) bool { return now.PID != s.PID })
	}
	call(t, c, "still")
}

// TestHung: a relay that is stopped while bytes wait is replaced; one without is not.
func TestHung(t *testing.T) {
	h := newMachine(t)
	h.guard(looksQuickly)
	socket, p := h.relay("relay")
	idle, _ := h.relay("idle")
	call(t, connect(t, idle), "word")
	c := connect(t, socket)
	call(t, c, "first")
	h.registered(socket, func(s Status) bool { return s.Entries == 3 })
	testkit.Stop(t, p.cmd.Process.Pid)
	time.Sleep(10 * quickly)
	if s := h.registered(socket, anyStatus); s.Resumed != 0 {
		t.Error("it was replaced though nothing waited")
	}
	call(t, c, "hangs")
	if s := h.registered(socket, func(s Status) bool { return s.Resumed == 1 }); s.Cause != Hung {
		t.Errorf("resumed since it was %q", s.Cause)
	}
	if s := h.registered(idle, anyStatus); s.Resumed != 0 {
		t.Error("another one was replaced as well")
	}
}

// TestDeadlocked: a relay that is not stopped, but does not move, is replaced as well.
func TestDeadlocked(t *testing.T) {
	h := newMachine(t)
	h.guard(looksQuickly)
	socket, _ := h.relay("relay")
	c, bad := connect(t, socket), connect(t, socket)
	call(t, c, "first")
	h.registered(socket, func(s Status) bool { return s.Entries == 4 })
	call(t, bad, "freeze") // it answers that it does
	_, _ = io.WriteString(c, "read by the one that hangs")
	eventually(t, "it has read that", func() bool { return unsent(t, c) == 0 })
	call(t, c, "for the next one")
	if s := h.registered(socket, func(s Status) bool { return s.Resumed == 1 }); s.Cause != Hung {
		t.Errorf("resumed since it was %q", s.Cause)
	}
}

// TestHungListener: connections that nobody accepts are a reason as well.
func TestHungListener(t *testing.T) {
	h := newMachine(t)
	h.guard(looksQuickly)
	socket, p := h.relay("relay")
	h.registered(socket, anyStatus)
	testkit.Stop(t, p.cmd.Process.Pid)
	call(t, connect(t, socket), "accepted")
}

// TestSlowPeer: that the other side does not take bytes is none.
func TestSlowPeer(t *testing.T) {
	h := newMachine(t)
	h.guard(looksQuickly)
	socket, _ := h.relay("relay")
	c := connect(t, socket)
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	for { // and read nothing
		if _, err := c.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	time.Sleep(20 * quickly)
	if s := h.registered(socket, anyStatus); s.Resumed != 0 {
		t.Error("it was replaced")
	}
}

// TestGuardKilled: relays register with the next guard, which then guards them; traffic
// goes on meanwhile.
func TestGuardKilled(t *testing.T) {
	h := newMachine(t)
	g := h.start("guard", []string{h.dir})
	socket, p, c, _ := h.relaying()
	g.signal(unix.SIGKILL)
	call(t, c, "without")
	d := connect(t, socket)
	call(t, d, "without")
	h.guard(nil)
	h.registered(socket, func(s Status) bool { return s.Entries == 4 })
	p.signal(unix.SIGKILL)
	call(t, c, "with")
	call(t, d, "with")
}

// TestBothKilled: the relay's connections end, as they would without a guard.
func TestBothKilled(t *testing.T) {
	h := newMachine(t)
	g := h.start("guard", []string{h.dir})
	_, p, c, _ := h.relaying()
	g.signal(unix.SIGKILL)
	p.signal(unix.SIGKILL)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection does not end: %v", err)
	}
	h.guard(nil)
	if _, all, _ := Ask(context.Background(), h.dir); len(all) != 0 {
		t.Errorf("there is %v", all)
	}
}

// TestLeaves: a relay that ends in order has no successor, and its connections end.
func TestLeaves(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	socket, _, c, _ := h.relaying()
	other := connect(t, socket)
	call(t, other, "first")
	_, _ = io.WriteString(c, "leave")
	_ = other.SetReadDeadline(time.Now().Add(patience))
	if _, err := other.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection does not end: %v", err)
	}
	eventually(t, "the guard forgets it", func() bool {
		_, all, err := Ask(context.Background(), h.dir)
		return err == nil && len(all) == 0
	})
}

// TestRemoved: what a relay closes ends, though the guard had a copy.
func TestRemoved(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	socket, _, c, _ := h.relaying()
	_ = c.(*net.UnixConn).CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("it does not end: %v", err)
	}
	h.registered(socket, func(s Status) bool { return s.Entries == 2 })
}

// TestSuccessorDies: successors that die are followed by others, more and more slowly;
// after some the guard gives up, and what it held is closed.
func TestSuccessorDies(t *testing.T) {
	for _, how := range []string{"-dies", "-dies-late", "-refuses"} {
		t.Run(how, func(t *testing.T) {
			h := newMachine(t)
			h.guard(func(o *Options) { o.backoff = []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond} })
			_, p, c, _ := h.relaying("TEST_NEXT=" + how)
			began := time.Now()
			p.signal(unix.SIGKILL)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("it does not end: %v", err)
			}
			if took := time.Since(began); took < 60*time.Millisecond {
				t.Errorf("the guard gives up after %v", took)
			}
			if !h.log.contains("3 in a row did not stay") {
				t.Errorf("the guard says only %q", h.log.all)
			}
		})
	}
}

// TestSuccessorHangs: one that does not come up is killed and followed by another.
func TestSuccessorHangs(t *testing.T) {
	h := newMachine(t)
	h.guard(func(o *Options) { o.backoff, o.comesUp = []time.Duration{0, 0}, 500*time.Millisecond })
	_, p, c, _ := h.relaying("TEST_NEXT=-hangs")
	p.signal(unix.SIGKILL)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("it does not end: %v", err)
	}
	if !h.log.contains("does not come up") {
		t.Errorf("the guard says only %q", h.log.all)
	}
}

// TestCrashes: a relay that ends by itself without a word is followed as well.
func TestCrashes(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	socket, _ := h.relay("relay")
	c, bad := connect(t, socket), connect(t, socket)
	call(t, c, "first")
	call(t, bad, "first")
	h.registered(socket, func(s Status) bool { return s.Entries == 4 })
	_, _ = io.WriteString(bad, "crash")
	h.registered(socket, func(s Status) bool { return s.Resumed == 1 })
	call(t, c, "again")
}

// TestProgramGone: there is no program to go on with.
func TestProgramGone(t *testing.T) {
	h := newMachine(t)
	h.guard(func(o *Options) { o.backoff = []time.Duration{0, 0} })
	l, err := net.Listen("unix", filepath.Join(h.dir, "gone"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	link, err := dial(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	sleeper := exec.Command("sleep", "60") // any process does
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleeper.Wait() }() // unless the guard has
	defer func() { _ = sleeper.Process.Kill() }()
	pidfd, err := unix.PidfdOpen(sleeper.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	err = host.Control(link, func(fd int) error {
		if err := sendPacket(fd, message{Type: typeRegister, Who: &Registration{ID: "gone", Program: "/nowhere", Args: []string{"x"}}}, pidfd); err != nil {
			return err
		}
		return sendPacket(fd, message{Type: typeComplete})
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = sleeper.Process.Kill() // not before: the guard would end the link in the middle
	eventually(t, "the guard gives up", func() bool { return h.log.contains("2 in a row did not stay") })
}

// TestUpgrade: a relay becomes another program, and what cannot be is refused: then it
// goes on as it is.
func TestUpgrade(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	socket, _, c, before := h.relaying()
	ctx := context.Background()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := UpgradeRelay(ctx, h.dir, socket, self, true); err != nil {
		t.Errorf("dry run: %v", err)
	}
	if s := h.registered(socket, anyStatus); s.PID != before.PID {
		t.Error("a dry run has done it")
	}
	if _, err := UpgradeRelay(ctx, h.dir, socket, "/nowhere", false); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a program that is not there: %v", err)
	}
	if _, err := UpgradeRelay(ctx, h.dir, "nobody", self, false); err == nil {
		t.Error("nobody is upgraded")
	}
	if _, err := UpgradeRelay(ctx, h.dir, socket, "/bin/true", false); err == nil {
		t.Error("another program is taken")
	}
	call(t, c, "as before")
	pause, err := UpgradeRelay(ctx, h.dir, socket, self, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("nobody relayed for %v", pause)
	if pause <= 0 {
		t.Error("which cannot be")
	}
	call(t, c, "after")
	after := h.registered(socket, func(s Status) bool { return s.PID != before.PID })
	if after.Cause != Upgrade || after.Resumed != 1 {
		t.Errorf("now it is %+v", after)
	}
}

// TestUpgradeRefused: by the new program, and by the relay.
func TestUpgradeRefused(t *testing.T) {
	for env, want := range map[string]string{"TEST_NEXT=-refuses": "state of version 1", "TEST_KEEPS=1": "it would rather not"} {
		h := newMachine(t)
		h.guard(nil)
		socket, _, c, before := h.relaying(env)
		self, _ := os.Executable()
		if _, err := UpgradeRelay(context.Background(), h.dir, socket, self, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", env, err)
		}
		call(t, c, "as before")
		if s := h.registered(socket, anyStatus); s.PID != before.PID || s.Resumed != 0 {
			t.Errorf("%s: now it is %+v", env, s)
		}
	}
}

// TestIdle: a guard without relays ends, and the next relay has another one started.
func TestIdle(t *testing.T) {
	h := newMachine(t)
	ended := make(chan error, 100)
	var runs atomic.Bool
	start := func() {
		if !runs.CompareAndSwap(false, true) {
			return
		}
		go func() {
			err := Run(context.Background(), Options{Dir: h.dir, Logf: h.log.add, idle: 50 * time.Millisecond})
			ended <- err
			runs.Store(false)
		}()
	}
	start()
	wait := func() {
		t.Helper()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("it stays")
		}
	}
	wait()
	c := new(Client)
	c.Register(ClientOptions{Dir: h.dir, Who: Registration{ID: "x", Program: "/x", Args: []string{"x"}}, Ensure: start, Logf: h.log.add})
	eventually(t, "it is guarded", func() bool {
		_, all, err := Ask(context.Background(), h.dir)
		return err == nil && len(all) == 1 && all[0].Guarded
	})
	for len(ended) > 0 { // one that the relay has not reached in time
		wait()
	}
	time.Sleep(200 * time.Millisecond)
	if len(ended) > 0 {
		t.Error("it ends though there is a relay")
	}
	c.Leave()
	wait()
}
