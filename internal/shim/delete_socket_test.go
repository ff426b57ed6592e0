package shim

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
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
		{"relay dead", "auto", "/bin/containerd-shim-kata-v2", false, true},
		{"relay alive", "auto", "/bin/containerd-shim-kata-v2", true, false},
		{"not Kata", "auto", "/bin/containerd-shim-runc-v2", false, false},
		{"off by now", "off", "/bin/containerd-shim-kata-v2", false, true},
		{"on for another", "on", "/bin/containerd-shim-runc-v2", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := config.Default()
			cfg.Relay.StateDir = dir
			cfg.Agent.Inject = tt.inject
			cfg.Agent.Sockets = map[string]string{"vmm": filepath.Join(dir, "{sandbox}", "vm.sock")}
			vm := filepath.Join(dir, "pod")
			if err := os.Mkdir(vm, 0o700); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(vm, "vm.sock")
			leaveSocket(t, socket)
			var at unix.Stat_t
			if err := unix.Lstat(socket, &at); err != nil {
				t.Fatal(err)
			}
			vmm := shimtest.Listen(t, filepath.Join(vm, fmt.Sprintf(".shimtrace-vm.sock-%d", at.Ino)))
			defer vmm.Close()

			st := &state.State{Sandbox: "pod", InnerSock: filepath.Join(dir, "inner")}
			paths := state.PathsOf(dir, st.InnerSock)
			st.RelaySock = paths.Socket
			if err := os.MkdirAll(filepath.Dir(paths.Socket), 0o700); err != nil {
				t.Fatal(err)
			}
			if tt.relay {
				defer shimtest.Listen(t, paths.Socket).Close()
			}
			command{}.restoreSocket(cfg, st, tt.inner, slog.New(slog.DiscardHandler))
			if got := state.Answers(socket); got != tt.back {
				t.Errorf("the VMM answers: %t", got)
			}
		})
	}
}

// leaveSocket makes a socket that nobody listens on.
func leaveSocket(t *testing.T, path string) { shimtest.Listen(t, path).Close() }
