package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// TestDeleteGivesTheVMMItsSocketBack when the relay is dead, and only then: the next
// shimtrace understands the names that this one has left.
func TestDeleteGivesTheVMMItsSocketBack(t *testing.T) {
	for _, tt := range []struct {
		name, inject, inner string
		relay, back         bool
	}{
		{"relay dead", "auto", "kata", false, true},
		{"relay alive", "auto", "kata", true, false},
		{"not Kata", "auto", "runc", false, false},
		{"off by now", "off", "kata", false, true},
		{"on elsewhere", "on", "runc", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			vm := filepath.Join(dir, "c1")
			if err := os.Mkdir(vm, 0o700); err != nil {
				t.Fatal(err)
			}
			h := newShimHostOf(t, tt.inner, dir, filepath.Join(dir, "journal"), "ls -ld "+vm+"/vm.sock >"+dir+"/seen; echo answer",
				fmt.Sprintf("[agent]\ninject = %q\n[agent.sockets]\nvmm = %q\n", tt.inject, filepath.Join(dir, "{sandbox}", "vm.sock")))
			socket := filepath.Join(vm, "vm.sock")
			leaveSocket(t, socket)
			var at unix.Stat_t
			if err := unix.Lstat(socket, &at); err != nil {
				t.Fatal(err)
			}
			aside := filepath.Join(vm, fmt.Sprintf(".shimtrace-vm.sock-%d", at.Ino))
			vmm := shimtest.Listen(t, aside)
			defer vmm.Close()

			st := &state.State{
				Version: state.Version, Trace: state.NewTraceContext(export.NewRoot(context.Background(), h.cfg.Trace)),
				Started: time.Now(), Sandbox: "c1", InnerSock: filepath.Join(dir, "inner"),
			}
			paths := state.PathsOf(dir, st.InnerSock)
			st.RelaySock = paths.Socket
			if err := os.MkdirAll(filepath.Dir(paths.Socket), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{paths.State, filepath.Join(h.bundle, state.File)} {
				if err := st.Write(path); err != nil {
					t.Fatal(err)
				}
			}
			if tt.relay {
				defer shimtest.Listen(t, paths.Socket).Close()
			}
			if out, _, err := h.run("delete"); err != nil || out != "answer\n" {
				t.Fatalf("delete: %q, %v", out, err)
			}
			h.settle()
			if got := state.Answers(socket); got != tt.back {
				t.Errorf("the VMM answers: %t", got)
			}
			if _, err := os.Lstat(paths.State); (err == nil) != tt.relay {
				t.Errorf("the relay's files: %v", err)
			}
		})
	}
}

// leaveSocket makes a socket that nobody listens on.
func leaveSocket(t *testing.T, path string) { shimtest.Listen(t, path).Close() }
