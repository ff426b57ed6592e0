package main

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

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/shim/control"
)

// dummyRelay answers like a relay.
type dummyRelay struct {
	control.Relay
	containers []control.Container
	fails      string // its error for on and off
	unsampled  bool

	mu     sync.Mutex
	window *control.Window
	asked  []control.Request
}

func (f *dummyRelay) handle(_ net.Conn, r control.Request) control.Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r)
	a := control.Answer{Sandbox: f.Sandbox, Pod: f.Pod, PodNamespace: f.PodNamespace, Inner: f.Inner, Containers: f.containers}
	was := f.window != nil && f.window.Ended.IsZero()
	now := was
	switch {
	case r.Do == control.DoStatus:
	case f.fails != "":
		a.Error = f.fails
	case r.Do == control.DoOn:
		now = true
		f.window = &control.Window{TraceID: "0123456789abcdef0123456789abcdef", Sampled: !f.unsampled, Since: time.Now()}
		if r.For > 0 {
			f.window.Until = time.Now().Add(r.For)
		}
	case was:
		now = false
		f.window.Ended = time.Now()
	}
	a.On, a.Changed, a.Window = now, now != was, f.window
	return a
}

const podID = "4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1"

// dummyRelays starts relays and returns the state directory and the relays by sandbox.
func dummyRelays(t *testing.T) (dir string, relays map[string]*dummyRelay) {
	t.Helper()
	dir = t.TempDir()
	relays = map[string]*dummyRelay{}
	for i, f := range []*dummyRelay{
		{Relay: control.Relay{Sandbox: podID, Pod: "web-0", PodNamespace: "shop", Dynamic: true},
			containers: []control.Container{{ID: "c0ffee", Name: "app"}, {ID: podID}}},
		{Relay: control.Relay{Sandbox: "box", Dynamic: true}, containers: []control.Container{{ID: "box", Name: "box"}}},
		{Relay: control.Relay{Sandbox: "boxes", Pod: "web-0", PodNamespace: "test", Dynamic: true}, unsampled: true},
		{Relay: control.Relay{Sandbox: "always", Pod: "db-0", PodNamespace: "shop"}},
	} {
		f.Inner = "/usr/bin/containerd-shim-kata-v2"
		relays[f.Sandbox] = f
		addRelay(t, dir, fmt.Sprint(i), f)
	}
	return dir, relays
}

func addRelay(t *testing.T, dir, base string, f *dummyRelay) {
	t.Helper()
	base = filepath.Join(dir, "s", base)
	if err := os.MkdirAll(filepath.Dir(base), 0o700); err != nil {
		t.Fatal(err)
	}
	f.RelaySock = base + ".sock"
	front, err := net.Listen("unix", f.RelaySock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { front.Close() })
	text, err := json.Marshal(f.Relay)
	if err == nil {
		err = os.WriteFile(base+".json", text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !f.Dynamic {
		return
	}
	l, err := net.Listen("unix", base+control.Suffix)
	if err != nil {
		t.Fatal(err)
	}
	s := control.Serve(l, f.handle)
	t.Cleanup(s.Close)
}

// switched returns which sandboxes were asked to do what.
func switched(relays map[string]*dummyRelay, do string) string {
	var ids []string
	for _, id := range []string{podID, "box", "boxes", "always"} {
		for _, r := range relays[id].asked {
			if r.Do == do {
				ids = append(ids, id)
			}
		}
	}
	return strings.Join(ids, " ")
}

func TestOnMeans(t *testing.T) {
	for query, want := range map[string]string{
		podID: podID, "4f2a": podID, "shop/web-0": podID, "test/web-0": "boxes", "c0ffee": podID, "c0f": podID, "app": podID,
		"box": "box", "boxe": "boxes", "box boxes": "box boxes", "app c0f 4f": podID, "all": podID + " box boxes",
	} {
		t.Run(query, func(t *testing.T) {
			dir, relays := dummyRelays(t)
			command(t, nil, append([]string{"on", "--state-dir", dir}, strings.Fields(query)...)...).want(t, console.OK, "switched on", "")
			if got := switched(relays, control.DoOn); got != want {
				t.Errorf("switched on %q, want %q", got, want)
			}
		})
	}
}

func TestOnDoesNotMean(t *testing.T) {
	for args, want := range map[string]struct {
		code   int
		stderr string
	}{
		"on":                {console.Usage, "needs the name of a sandbox"},
		"off":               {console.Usage, "or all"},
		"on web-0":          {console.Usage, "shop/web-0 " + podID},
		"on bo":             {console.Usage, "name one by its id"},
		"on nosuch":         {console.Nothing, `"nosuch"; shimtrace status lists the 4`},
		"on box nosuch":     {console.Nothing, "nosuch"},
		"status nosuch":     {console.Nothing, "nosuch"},
		"on always":         {console.Failure, `shop/db-0 cannot be switched: trace.mode "static"`},
		"off db-0":          {console.Failure, `trace.mode = "dynamic"`},
		"on box --for 0s":   {console.Usage, "--for 0s"},
		"on box --for -3s":  {console.Usage, "positive"},
		"on box --for ever": {console.Usage, "ever"},
		"off box --for 3s":  {console.Usage, "for"},
	} {
		t.Run(args, func(t *testing.T) {
			dir, relays := dummyRelays(t)
			r := command(t, nil, append(strings.Fields(args), "--state-dir", dir)...)
			if r.code != want.code || !strings.Contains(r.stderr, want.stderr) {
				t.Errorf("exit code %d, want %d; stderr should have %q: %s", r.code, want.code, want.stderr, r.stderr)
			}
			if got := switched(relays, control.DoOn) + switched(relays, control.DoOff); got != "" {
				t.Errorf("switched %s all the same", got)
			}
		})
	}
}

func TestOnAndOff(t *testing.T) {
	dir, relays := dummyRelays(t)
	run := func(args string) result {
		return command(t, map[string]string{"SUDO_USER": "alice"}, append(strings.Fields(args), "--state-dir", dir)...)
	}
	run("on box --for 90s").want(t, console.OK, "(1m30s)", "")
	if r := relays["box"].asked[1]; r.For != 90*time.Second || r.By != "alice" {
		t.Errorf("asked for %+v", r)
	}
	run("on box").want(t, console.OK, "was on", "")
	run("status "+patient+" box").want(t, console.OK, "0123456789ab", "")
	run("off box").want(t, console.OK, "switched off", "")
	run("off box").want(t, console.OK, "was off", "")
	run("on all").want(t, console.OK, "switched on", "1 more cannot be switched")
	run("on all").want(t, console.OK, "was on", "1 of these traces have not been chosen by trace.sampler")
}

// looksAt is an environment of which the journal is in a directory.
func looksAt(t *testing.T, journal string) map[string]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("[journal]\ndir = \""+journal+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"SHIMTRACE_CONFIG": file}
}

// patient is how long tests wait for relays on a busy machine.
const patient = "--wait=1m"

func TestStatus(t *testing.T) {
	dir, _ := dummyRelays(t)
	env := looksAt(t, filepath.Join(t.TempDir(), "journal"))
	r := command(t, env, "status", patient, "--state-dir", dir)
	r.want(t, console.OK, "SANDBOX", "")
	table := r.stdout[strings.Index(r.stdout, "SANDBOX"):]
	if lines := strings.Split(strings.TrimSpace(table), "\n"); len(lines) != 5 ||
		strings.Join(strings.Fields(lines[1]), " ") != "4f2a9c1b7e30 shop/web-0 kata off - - - - - - -" ||
		strings.Join(strings.Fields(lines[4]), " ") != "always shop/db-0 kata static - - - - - - -" {
		t.Errorf("got\n%s", r.stdout)
	}
	r = command(t, env, "status", patient, "--state-dir", dir, "--json", "c0ffee")
	var got struct {
		Relays []struct {
			Sandbox, Mode, Runtime string
			On                     bool
			Containers             []struct{ ID string }
		}
		Journals []struct{ Dir string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || len(got.Relays) != 1 || len(got.Journals) != 1 {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	if got := got.Relays[0]; got.Sandbox != podID || got.Mode != "dynamic" || got.On || got.Runtime != "kata" || len(got.Containers) != 2 {
		t.Errorf("got %+v", got)
	}
	command(t, env, "status", "--wait", "-1s").want(t, console.Usage, "", "positive")
}

// TestStateDirOfConfiguration: without --state-dir, the configured one is used.
func TestStateDirOfConfiguration(t *testing.T) {
	dir, _ := dummyRelays(t)
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[relay]\nstate_dir = %q\n[journal]\ndir = %q\n", dir, t.TempDir()), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, map[string]string{"SHIMTRACE_CONFIG": file}, "status", patient).want(t, console.OK, "shop/web-0", "")
}

func TestNothingToSwitch(t *testing.T) {
	dir := t.TempDir()
	for _, args := range []string{"on all", "off all", "on x", "status x"} {
		command(t, nil, append(strings.Fields(args), "--state-dir", dir)...).want(t, console.Nothing, "", "no traced sandbox runs")
	}
	command(t, nil, "status", patient, "--state-dir", dir).want(t, console.Nothing, "journal", "no traced sandbox runs")
	addRelay(t, dir, "0", &dummyRelay{Relay: control.Relay{Sandbox: "always"}})
	command(t, nil, "on", "all", "--state-dir", dir).want(t, console.Nothing, "", "none of the 1 sandboxes")
}

// Relays that fail, have ended or are of another version are reported and do not hinder
// the others.
func TestSwitchWhatFails(t *testing.T) {
	dir, relays := dummyRelays(t)
	relays["box"].fails = "nothing can be recorded: disk full"
	// A relay that was killed.
	addRelay(t, dir, "8", &dummyRelay{Relay: control.Relay{Sandbox: "dead"}})
	if err := os.WriteFile(filepath.Join(dir, "s", "8.json"), []byte(`{"sandbox":"dead","dynamic":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := command(t, nil, "on", "all", "--state-dir", dir)
	r.want(t, console.Failure, "failed", "box: nothing can be recorded: disk full")
	if got := switched(relays, control.DoOn); got != podID+" box boxes" || strings.Contains(r.stdout+r.stderr, "dead") {
		t.Errorf("switched on %q; %s", got, r.stderr)
	}
	r = command(t, nil, "on", "box", "--json", "--state-dir", dir)
	r.want(t, console.Failure, `"error":"nothing can be recorded: disk full"`, "disk full")
	command(t, nil, "on", "dead", "--state-dir", dir).want(t, console.Nothing, "", "dead")
	// A relay that could not be switched.
	if err := os.WriteFile(filepath.Join(dir, "s", "9.json"), []byte(`{"sandbox":"dead","relay_socket":"`+filepath.Join(dir, "s", "9.sock")+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, nil, "status", "dead", "--state-dir", dir).want(t, console.Nothing, "", "dead")
}

// An unset variable names no sandbox, even if some has no name.
func TestNoName(t *testing.T) {
	dir, relays := dummyRelays(t)
	command(t, nil, "on", "", "--state-dir", dir).want(t, console.Nothing, "", `""`)
	if got := switched(relays, control.DoOn); got != "" {
		t.Errorf("switched %s on", got)
	}
}
