package interpose

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmtest"
)

// TestKilled: whatever a relay killed at any step leaves behind, Restore or the next
// relay puts in order.
func TestKilled(t *testing.T) {
	for _, step := range []string{"bound", "named", "exchanged", "accepted", "dialed", "asked", ""} {
		for _, by := range []string{"restore", "relay"} {
			t.Run(step+" "+by, func(t *testing.T) {
				pattern, v := vmmAt(t)
				id, _ := identify(t, v.path)
				var c *vmtest.Child
				switch step {
				case "accepted", "dialed":
					c = start(t, nil, "relay", pattern, step)
					taken(t, v.path)
					conn := dial(t, v.path)
					if _, err := conn.Write([]byte("CONNECT 1024\n")); err != nil {
						t.Fatal(err)
					}
					c.Expect(step)
					c.Kill()
					if _, err := conn.Read(make([]byte, 1)); err == nil {
						t.Error("the connection goes on")
					}
				case "asked":
					v.mute.Store(true)
					c = start(t, nil, "relay", pattern)
					taken(t, v.path)
					conn := dial(t, v.path)
					if _, err := conn.Write([]byte("CONNECT 1024\nahead")); err != nil {
						t.Fatal(err)
					}
					eventually(t, "the VMM is asked", func() bool { return v.asked.Load() == 1 })
					c.Kill()
					if _, err := conn.Read(make([]byte, 1)); err == nil {
						t.Error("the connection goes on")
					}
					v.mute.Store(false)
				case "":
					c = start(t, nil, "relay", pattern)
					taken(t, v.path)
					conn := dial(t, v.path)
					if err := converse(conn, "CONNECT 1024\n", "request"); err != nil {
						t.Fatal(err)
					}
					c.Kill()
					if _, err := conn.Read(make([]byte, 1)); err == nil {
						t.Error("the connection goes on")
					}
				default:
					c = start(t, nil, "relay", pattern, step)
					c.Expect(step)
					c.Kill()
				}
				all := []listen.Pattern{{VMM: "none", Path: filepath.Dir(v.path) + "/none/{sandbox}"}, {VMM: "test", Path: pattern}}
				if by == "relay" {
					_, stop := interposer(t, pattern, Options{})
					eventually(t, "the dead relay's place is taken", func() bool { return !refused(v.path) && interposed(v.path) })
					mustConverse(t, v.path)
					stop()
				} else if err := Restore("pod", all); err != nil {
					t.Error(err)
				}
				if now, _ := identify(t, v.path); now != id {
					t.Errorf("not the VMM's: %v", names(t, v.path))
				}
				alone(t, v.path)
				mustConverse(t, v.path)
			})
		}
	}
}

// TestKilledBoth: the VMM ends as well before anybody looks, in order or not.
func TestKilledBoth(t *testing.T) {
	for _, step := range []string{"bound", "named", "exchanged", ""} {
		for _, orderly := range []bool{true, false} {
			t.Run(step, func(t *testing.T) {
				pattern, path := at(t)
				if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				v := start(t, nil, "vmm", path)
				v.Expect("listens")
				var c *vmtest.Child
				if step == "" {
					c = start(t, nil, "relay", pattern)
					taken(t, path)
				} else {
					c = start(t, nil, "relay", pattern, step)
					c.Expect(step)
				}
				c.Kill()
				v.Kill()
				if orderly {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				}
				if err := Restore("pod", []listen.Pattern{{VMM: "test", Path: pattern}}); err != nil {
					t.Error(err)
				}
				if orderly {
					if got := names(t, path); len(got) != 0 {
						t.Errorf("left behind: %v", got)
					}
					return
				}
				alone(t, path)
				if !refused(path) {
					t.Error("somebody answers")
				}
			})
		}
	}
}

// TestRestoreLeavesAlone: names that only look like ours, and a VMM's new socket.
func TestRestoreLeavesAlone(t *testing.T) {
	pattern, v := vmmAt(t)
	dir := filepath.Dir(v.path)
	id, _ := identify(t, v.path)
	keep := []string{".shimtrace-vm.sock-x", ".shimtrace-other.sock-12", ".shimtrace-77"}
	stale := hiddenName("vm.sock", id)[:len(".shimtrace-vm.sock-")] + "1" // no such file any more
	for _, name := range append([]string{stale}, keep...) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	if err := Restore("pod", []listen.Pattern{{VMM: "test", Path: pattern}}); err != nil {
		t.Error(err)
	}
	for _, name := range keep {
		identify(t, filepath.Join(dir, name))
	}
	if got := names(t, v.path); len(got) != len(keep)+1 {
		t.Errorf("there are %v", got)
	}
	if now, _ := identify(t, v.path); now != id || v.total.Load() != 0 {
		t.Error("the VMM was touched")
	}

	// A process that keeps the directory locked holds up nobody for long.
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := Restore("pod", []listen.Pattern{{VMM: "test", Path: pattern}}); err == nil {
		t.Error("worked in a locked directory")
	}
}
