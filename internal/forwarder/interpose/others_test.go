package interpose

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
)

// TestLeavesAlone: files other than a VMM's socket stay as they are.
func TestLeavesAlone(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(t *testing.T, path string)
		says string
	}{
		"a file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		"a link to a socket": {func(t *testing.T, path string) {
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			if err := os.Symlink(l.Addr().String(), path); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		"a directory that others write": {func(t *testing.T, path string) {
			needRoot(t)
			startVMM(t, path)
			if err := errors.Join(os.Chmod(filepath.Dir(path), 0o555), os.Chown(filepath.Dir(path), 65534, 65534)); err != nil {
				t.Fatal(err)
			}
		}, "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			pattern, path := at(t)
			dir := filepath.Dir(path)
			if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755)); err != nil {
				t.Fatal(err)
			}
			c.put(t, path)
			id, _ := identify(t, path)
			var log lines
			_, stop := interposer(t, pattern, Options{Warn: log.warn})
			eventually(t, "a warning", func() bool { return strings.Contains(log.String(), c.says) })
			time.Sleep(20 * time.Millisecond) // some more attempts
			stop()
			if now, _ := identify(t, path); now != id {
				t.Error("it has been replaced")
			}
			if n := strings.Count(log.String(), "\n"); n != 1 {
				t.Errorf("%d warnings: %s", n, log.String())
			}
			alone(t, path)
		})
	}
}

// TestOtherRelay: another relay's place is left to it, and its VMM is not disturbed
// repeatedly.
func TestOtherRelay(t *testing.T) {
	pattern, v := vmmAt(t)
	c := start(t, nil, "relay", pattern)
	taken(t, v.path)
	theirs, _ := identify(t, v.path)
	var log lines
	i, stop := interposer(t, pattern, Options{Warn: log.warn})
	eventually(t, "a warning", func() bool { return strings.Contains(log.String(), "another relay") })
	if err := Restore("pod", i.opts.Patterns); err != nil {
		t.Error(err)
	}
	time.Sleep(20 * time.Millisecond) // some more attempts
	if now, _ := identify(t, v.path); now != theirs {
		t.Error("the other's place has been taken")
	}
	if n := v.total.Load(); n > 2 {
		t.Errorf("the VMM saw %d connections", n)
	}
	mustConverse(t, v.path)
	c.Expect("counted")
	if got := i.Counts(); got != (Counts{}) {
		t.Errorf("counts %+v", got)
	}
	stop()
	c.Kill()
	// The next relay finds a dead one's place, and takes it.
	i, _ = interposer(t, pattern, Options{})
	eventually(t, "the place is taken over", func() bool {
		if conn, err := net.Dial("unix", v.path); err == nil {
			_ = converse(conn, "CONNECT 1024\n", "request")
			conn.Close()
		}
		return i.Counts().Relayed > 0
	})
}

// TestOwners: our socket has the VMM's user, group and mode, whoever owns the directory.
func TestOwners(t *testing.T) {
	needRoot(t)
	const vmmUser, vmmGroup = 65534, 12345
	for name, dirOwner := range map[string]int{"its own": vmmUser, "root's": 0} {
		t.Run(name, func(t *testing.T) {
			pattern, v := vmmAt(t)
			dir := filepath.Dir(v.path)
			if err := errors.Join(
				os.Chown(dir, dirOwner, vmmGroup), os.Chmod(dir, 0o775),
				os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755),
				os.Chown(v.path, vmmUser, vmmGroup), os.Chmod(v.path, 0o620),
			); err != nil {
				t.Fatal(err)
			}
			id, _ := identify(t, v.path)
			_, stop := interposer(t, pattern, Options{})
			taken(t, v.path)
			if _, st := identify(t, v.path); st.Uid != vmmUser || st.Gid != vmmGroup || st.Mode&0o777 != 0o620 {
				t.Errorf("ours is %o of %d:%d", st.Mode, st.Uid, st.Gid)
			}
			mustConverse(t, v.path)
			stop()
			if now, _ := identify(t, v.path); now != id {
				t.Error("the VMM's is not back")
			}
		})
	}
}

// TestModeAndOwnerComeBack: a change of mode or owner of our socket is on the VMM's
// socket afterwards, by whichever way the name goes back.
func TestModeAndOwnerComeBack(t *testing.T) {
	needRoot(t)
	const user, group = 12345, 23456
	for _, by := range []string{"relay", "restore"} {
		t.Run(by, func(t *testing.T) {
			pattern, v := vmmAt(t)
			id, _ := identify(t, v.path)
			var back func()
			if by == "relay" {
				_, stop := interposer(t, pattern, Options{})
				back = stop
			} else {
				c := start(t, nil, "relay", pattern)
				back = func() {
					c.Kill()
					if err := Restore("pod", []listen.Pattern{{VMM: "test", Path: pattern}}); err != nil {
						t.Error(err)
					}
				}
			}
			taken(t, v.path)
			if err := errors.Join(os.Chown(v.path, user, group), os.Chmod(v.path, 0o672)); err != nil {
				t.Fatal(err)
			}
			back()
			now, st := identify(t, v.path)
			if now != id || st.Uid != user || st.Gid != group || st.Mode&0o7777 != 0o672 {
				t.Errorf("the VMM's is %t: %o of %d:%d", now == id, st.Mode&0o7777, st.Uid, st.Gid)
			}
			alone(t, v.path)
			mustConverse(t, v.path)
		})
	}
}
