package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/guard"
)

// guardHere runs a guard in this process, and returns a relay registered with it under
// an id.
func guardHere(t *testing.T, dir, id string) *guard.Client {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- guard.Run(ctx, guard.Options{Dir: dir, Logf: t.Logf}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c := new(guard.Client)
	c.Register(guard.ClientOptions{
		Dir: dir, Logf: t.Logf,
		Who: guard.Registration{ID: id, Program: "/bin/false", Args: []string{"false"}, Sandbox: podID, Pod: "shop/web-0"},
	})
	t.Cleanup(c.Leave)
	eventually(t, "the relay is guarded", func() bool {
		_, all, err := guard.Ask(ctx, dir)
		return err == nil && len(all) == 1 && all[0].Guarded
	})
	return c
}

// TestStatusTellsTheUnguarded: status reports a missing guard, and relays that it does
// not know.
func TestStatusTellsTheUnguarded(t *testing.T) {
	dir, relays := dummyRelays(t)
	env := looksAt(t, filepath.Join(t.TempDir(), "journal"))
	command(t, env, "status", patient, "--state-dir", dir).want(t, console.OK, "there is no guard", "")
	guardHere(t, dir, relays["box"].RelaySock)
	command(t, env, "status", patient, "--state-dir", dir).want(t, console.OK, "3 of 4 relays are not guarded", "")
	out := command(t, env, "status", patient, "--state-dir", dir, "--json")
	var got struct {
		Relays []struct {
			Sandbox string
			Guarded *bool
		}
	}
	if err := json.Unmarshal([]byte(out.stdout), &got); err != nil || len(got.Relays) != 4 {
		t.Fatalf("%v: %s", err, out.stdout)
	}
	for _, r := range got.Relays {
		if want := r.Sandbox == "box"; r.Guarded == nil || *r.Guarded != want {
			t.Errorf("%s: guarded is %v", r.Sandbox, r.Guarded)
		}
	}
}

// shimThatSays is a program that prints a protocol version and can do nothing else.
func shimThatSays(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shim")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUpgradeRefuses: relays that cannot be moved are reported, and go on unchanged.
func TestUpgradeRefuses(t *testing.T) {
	dir := t.TempDir()
	good := shimThatSays(t, `[ "$2" = -check ] && echo 1`)
	command(t, nil, "upgrade", "--state-dir", dir, "--program", good).want(t, console.Nothing, "", "no relay can be moved")
	command(t, nil, "upgrade", "--state-dir", dir, "--program", "/nowhere").want(t, console.Failure, "", "--program")
	command(t, nil, "upgrade", "extra").want(t, console.Usage, "", "takes no argument")
	c := guardHere(t, dir, "relay")
	for text, says := range map[string]string{
		"exit 1":               "cannot take relays over",
		"echo usage":           "cannot take relays over",
		"echo 0":               "speaks version 0",
		"kill -9 $$":           "cannot take relays over",
		`[ "$2" = x ] && true`: "cannot take relays over",
	} {
		command(t, nil, "upgrade", "--state-dir", dir, "--program", shimThatSays(t, text)).want(t, console.Failure, "", says)
	}
	command(t, nil, "upgrade", "--state-dir", dir, "--program", good, "--dry-run").
		want(t, console.Failure, "1/1 shop/web-0: not moved: the new process has ended", "1 of 1 relays are not moved")
	out := command(t, nil, "upgrade", "--state-dir", dir, "--program", good, "--dry-run", "--json")
	var o struct {
		Sandbox, Error string
		DryRun         bool `json:"dry_run"`
	}
	if err := json.Unmarshal([]byte(out.stdout), &o); err != nil || o.Error == "" || o.Sandbox != podID || !o.DryRun {
		t.Errorf("%q is %+v, %v", out.stdout, o, err)
	}
	command(t, nil, "upgrade", "--state-dir", dir, "--program", good).want(t, console.Failure, "", "the guard is not replaced")
	if !c.Guarded() {
		t.Error("the relay is not guarded any more")
	}
}
