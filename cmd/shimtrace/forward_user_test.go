package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/shimtrace/shimtrace/internal/console"
)

// TestForwardAs: an unprivileged process reads what guests send.
func TestForwardAs(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("only root can start a process as another user")
		}
		t.Skip("only root can start a process as another user")
	}
	vms, dir := openDir(t), filepath.Join(openDir(t), "journal")
	p := startForward(t, "", "--socket-path", vms+"/{sandbox}/clh.sock", "--journal", dir, "--user", "nobody", "--json")
	connectAgent(t, sandboxDir(t, vms, "a"))
	connectAgent(t, sandboxDir(t, vms, "b")).Close()
	// The listening process is not needed any more: the other has the connections.
	eventually(t, "spans are stored", func() bool { return len(readStored(t, dir).spans["b"]) > 0 })
	segments, err := filepath.Glob(dir + "/*.seg")
	if err != nil || len(segments) == 0 {
		t.Fatal("no segments: ", err)
	}
	st, err := os.Stat(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid == 0 {
		t.Error("the journal was written by root")
	}
	p.stop()
	if sum := summaryOf(t, p); sum.Connections != 2 || sum.Spans != 2*capturedSpans {
		t.Errorf("%+v", sum)
	}
	if _, err := os.Lstat(vms + "/a/clh.sock_10240"); !os.IsNotExist(err) {
		t.Error("the socket was left behind: ", err)
	}
}

// TestForwardAsFails: the exit code is that of the process that failed.
func TestForwardAsFails(t *testing.T) {
	if os.Geteuid() != 0 {
		command(t, nil, "forward", "--socket-path", "/vm.sock", "--user", "nobody").want(t, console.Usage, "", "only root")
		return
	}
	p := startForward(t, "", "--socket-path", "/nowhere/vm.sock", "--journal", t.TempDir(), "--user", "nobody")
	p.ends(console.Failure)
	p.says("cannot be written to")
}
