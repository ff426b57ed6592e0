package doctor

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/host/hosttest"
	"github.com/shimtrace/shimtrace/internal/keeper"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// live returns the findings of one check on this host, with a state directory of the
// test's.
func live(t *testing.T, more string, prepare func(state string), check func(*site) []Finding) []Finding {
	t.Helper()
	dir := t.TempDir()
	state := filepath.Join(dir, "run")
	if err := os.MkdirAll(filepath.Join(state, "s"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(state, "collect"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte("[relay]\nstate_dir = \""+state+"\"\n"+more), 0o600); err != nil {
		t.Fatal(err)
	}
	prepare(state)
	env := map[string]string{config.PathEnv: file, "PATH": dir}
	return check(newSite(Options{Root: "/", Proc: host.Proc("/proc"), Getenv: func(k string) string { return env[k] }, Tool: self(t)}))
}

func want(t *testing.T, all []Finding, level Level, what string) {
	t.Helper()
	for i := range all {
		all[i].Check = "x"
	}
	wantOne(t, all, "x", level, what)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("files and ports of other users need root")
	}
}

// relay leaves the files of the relay of sandbox abc.
func relay(t *testing.T, state string) (socket string) {
	t.Helper()
	return relayOf(t, state, "abc")
}

func relayOf(t *testing.T, state, sandbox string) (socket string) {
	t.Helper()
	base := filepath.Join(state, "s", sandbox)
	socket = base + ".sock"
	text, err := json.Marshal(map[string]string{"sandbox": sandbox, "relay_socket": socket})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(base+".json", text, 0o600); err != nil {
		t.Fatal(err)
	}
	return socket
}

// answer has a sandbox's relay answer.
func answer(t *testing.T, state, sandbox string, answer func() control.Answer) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(state, "s", sandbox+control.Suffix))
	if err != nil {
		t.Fatal(err)
	}
	s := control.Serve(l, func(net.Conn, control.Request) control.Answer { return answer() })
	t.Cleanup(s.Close)
}

func TestStaleRelay(t *testing.T) {
	found := live(t, "", func(state string) { relay(t, state) }, func(s *site) []Finding { return staleRelays(t.Context(), s) })
	want(t, found, Warning, "the relay of sandbox abc is gone")
}

// TestGuestClock: what a relay has learned of its guest's clock is said.
func TestGuestClock(t *testing.T) {
	for offset, want := range map[time.Duration]Level{1300 * time.Millisecond: Note, -20 * time.Millisecond: OK} {
		prepare := func(state string) {
			relay(t, state)
			answer(t, state, "abc", func() control.Answer {
				return control.Answer{Facts: &control.Facts{Clock: &control.Clock{Offset: offset}}}
			})
		}
		text := "is -1.3s off"
		if want == OK {
			text = "the clocks of 1 guests are the host's"
		}
		found := live(t, "", prepare, func(s *site) []Finding { return guestClocks(t.Context(), s) })
		if len(found) != 1 || found[0].Level != want || !strings.Contains(found[0].What, text) {
			t.Errorf("found %+v, want %q", found, text)
		}
	}
}

// TestGuestClocks: relays are asked at once, and that one fails is said. Here each waits
// until all are asked.
func TestGuestClocks(t *testing.T) {
	const relays = 8
	var asked sync.WaitGroup
	asked.Add(relays)
	prepare := func(state string) {
		for i := range relays {
			sandbox := fmt.Sprint(i)
			relayOf(t, state, sandbox)
			a := control.Answer{Facts: &control.Facts{Clock: new(control.Clock)}}
			if i == 0 {
				a = control.Answer{Error: "it fails"}
			}
			answer(t, state, sandbox, func() control.Answer {
				asked.Done()
				asked.Wait()
				return a
			})
		}
	}
	found := live(t, "", prepare, func(s *site) []Finding { return guestClocks(t.Context(), s) })
	if len(found) != 2 || found[0].Level != OK || !strings.Contains(found[0].What, "of 7 guests") || found[1].Level != Note || !strings.Contains(found[1].What, "1 relay did not answer") {
		t.Errorf("found %+v", found)
	}
}

// TestNoGuard: a relay lives and the guard does not; collect's lock is there, and who has
// it says nothing.
func TestNoGuard(t *testing.T) {
	prepare := func(state string) {
		l, err := net.Listen("unix", relay(t, state))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	found := live(t, "", prepare, func(s *site) []Finding { return processes(t.Context(), s) })
	want(t, found, Error, "1 relays run without a guard")
}

func TestSilentCollect(t *testing.T) {
	prepare := func(state string) {
		lock := filepath.Join(state, "collect/lock")
		f, err := host.LockFile(lock, unix.LOCK_EX, 0)
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", lock+".ping")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(); f.Close() })
	}
	found := live(t, "", prepare, func(s *site) []Finding { return processes(t.Context(), s) })
	want(t, found, Error, "runs and does not answer")
}

func TestAnsweringCollect(t *testing.T) {
	prepare := func(state string) {
		lock := filepath.Join(state, "collect/lock")
		f, err := host.LockFile(lock, unix.LOCK_EX, 0)
		if err != nil {
			t.Fatal(err)
		}
		a, err := keeper.Answer(lock, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close(); f.Close() })
	}
	found := live(t, "", prepare, func(s *site) []Finding { return processes(t.Context(), s) })
	want(t, found, OK, "shimtrace collect answers")
}

// TestStateDirectory: one that others may change is refused by relays.
func TestStateDirectory(t *testing.T) {
	needRoot(t)
	prepare := func(state string) {
		if err := os.Chown(state, hosttest.Nobody, 0); err != nil {
			t.Fatal(err)
		}
	}
	found := live(t, "", prepare, func(s *site) []Finding { return processes(t.Context(), s) })
	want(t, found, Error, "relays refuse the state directory")
}

// TestForeignJournal: a journal of another user is refused.
func TestForeignJournal(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := os.Chown(dir, hosttest.Nobody, 0); err != nil {
		t.Fatal(err)
	}
	found := live(t, "[journal]\ndir = \""+dir+"\"\n", func(string) {}, func(s *site) []Finding { return journals(t.Context(), s) })
	want(t, found, Error, "shims refuse it")
}

// TestForeignPort: the port for runtimes' spans is another user's.
func TestForeignPort(t *testing.T) {
	needRoot(t)
	l := hosttest.ListenAs(t, hosttest.Nobody)
	found := live(t, "[jaeger]\nlisten = \""+l.Addr().String()+"\"\n", func(string) {}, func(s *site) []Finding { return []Finding{s.runtimePort()} })
	if len(found) != 1 || found[0].Level != Error {
		// A port above 1024 is also one that every user may open.
		t.Fatalf("found %+v", found)
	}
	want(t, found, Error, "has the port for runtimes' spans")
}

// TestOpenPort: every user may open it.
func TestOpenPort(t *testing.T) {
	address := testkit.FreePort(t)
	found := live(t, "[jaeger]\nlisten = \""+address+"\"\n", func(string) {}, func(s *site) []Finding { return []Finding{s.runtimePort()} })
	if found[0].Level == OK {
		t.Errorf("found %+v", found)
	}
}

// TestKernel: what this machine's kernel can is found, and found within seconds.
func TestKernel(t *testing.T) {
	needRoot(t)
	found := live(t, "", func(string) {}, func(s *site) []Finding { return kernel(t.Context(), s) })
	if len(found) != 3 {
		t.Errorf("found %+v", found)
	}
	for _, f := range found {
		if f.Level == Error || f.Level != OK && f.Do == "" {
			t.Errorf("found %+v", f)
		}
	}
}
