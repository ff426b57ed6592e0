package shim

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
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
			var st unix.Stat_t
			if err := unix.Lstat(socket, &st); err != nil {
				t.Fatal(err)
			}
			vmm := listenHere(t, filepath.Join(vm, fmt.Sprintf(".shimtrace-vm.sock-%d", st.Ino)))
			defer vmm.Close()

			state := &state{Sandbox: "pod", InnerSock: filepath.Join(dir, "inner")}
			paths := relayPaths(dir, state.InnerSock)
			state.RelaySock = paths.socket
			if err := os.MkdirAll(filepath.Dir(paths.socket), 0o700); err != nil {
				t.Fatal(err)
			}
			if tt.relay {
				defer listenHere(t, paths.socket).Close()
			}
			command{}.restoreSocket(cfg, state, tt.inner, slog.New(slog.DiscardHandler))
			if got := answers(socket); got != tt.back {
				t.Errorf("the VMM answers: %t", got)
			}
		})
	}
}

func listenHere(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	return l
}

// leaveSocket makes a socket that nobody listens on.
func leaveSocket(t *testing.T, path string) { listenHere(t, path).Close() }
