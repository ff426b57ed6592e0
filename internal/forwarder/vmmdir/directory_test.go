package vmmdir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmtest"
	"github.com/shimtrace/shimtrace/internal/host"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600), os.Symlink(dir, filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"none", "file", "link", "none/below"} {
		if d, err := Open(filepath.Join(dir, name)); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
	if d := open(t, dir); int(d.Owner.UID) != os.Geteuid() {
		t.Errorf("owner %v", d.Owner)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, second := open(t, dir), open(t, dir)
	if err := first.Lock(0); err != nil {
		t.Fatal(err)
	}
	if err := second.Lock(0); !errors.Is(err, host.ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	first.Close()
	if err := second.Lock(0); err != nil {
		t.Error(err)
	}
}

// TestInside: names are those in the directory, during the call only, however long its
// path is, and a file has the mode asked for.
func TestInside(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, path)
	if err := d.Inside(func() error {
		fd, err := ListenAt("s", 0o626)
		if err != nil {
			return err
		}
		if err := Connect("s"); err != nil {
			t.Error(err)
		}
		unix.Close(fd)
		if err := Connect("s"); !errors.Is(err, unix.ECONNREFUSED) {
			t.Error(err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, st, err := Identify(filepath.Join(path, "s")); err != nil || st.Mode&0o777 != 0o626 {
		t.Errorf("mode %o, %v", st.Mode, err)
	}
	if after, err := os.Getwd(); after != before {
		t.Errorf("we are in %s, %v", after, err)
	}
}

// TestRights: inside a directory of another user we have that user's rights, in a
// part of it another's, and afterwards our own.
func TestRights(t *testing.T) {
	vmtest.NeedRoot(t)
	const owner, other = 12345, 23456
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Chown(dir, owner, owner)); err != nil {
		t.Fatal(err)
	}
	create := func(name string) error {
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	if err := open(t, dir).Inside(func() error {
		if err := As(User{other, other}, func() error { return create("other") }); !errors.Is(err, unix.EACCES) {
			t.Errorf("another user wrote: %v", err)
		}
		if err := As(User{0, other}, func() error { return create("root") }); err != nil {
			t.Error(err)
		}
		return create("owner")
	}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]User{"root": {0, other}, "owner": {owner, owner}} {
		if _, st, err := Identify(filepath.Join(dir, name)); err != nil || (User{st.Uid, st.Gid}) != want {
			t.Errorf("%s is of %d:%d, %v", name, st.Uid, st.Gid, err)
		}
	}
	if err := create(filepath.Join(dir, "after")); err != nil {
		t.Error(err)
	}
	// If the owner may not write to a directory, neither may we.
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir).Inside(func() error { return create("no") }); !errors.Is(err, unix.EACCES) {
		t.Errorf("root's rights were used: %v", err)
	}
}

// TestOpenLinked: a link is followed to a directory beside it, as the Go runtime's
// factory makes one, if those made it who may write there; and no other link.
func TestOpenLinked(t *testing.T) {
	vmtest.NeedRoot(t)
	const stranger = 12345
	dir, elsewhere := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.Chmod(dir, 0o755),
		os.Mkdir(at("vm"), 0o700), os.WriteFile(at("file"), nil, 0o600),
		os.Symlink(at("vm"), at("absolute")), os.Symlink("vm", at("relative")),
		os.Symlink(elsewhere, at("elsewhere")), os.Symlink("absolute", at("twice")),
		os.Symlink("..", at("above")), os.Symlink("file", at("tofile")), os.Symlink("none", at("dangling")),
		os.Symlink("vm", at("stranger's")), os.Lchown(at("stranger's"), stranger, stranger),
	); err != nil {
		t.Fatal(err)
	}
	want, _, err := Identify(at("vm"))
	if err != nil {
		t.Fatal(err)
	}
	opens := func(name string) bool {
		d, err := Open(at(name))
		if err != nil {
			if !errors.Is(err, ErrNone) {
				t.Errorf("%s: %v", name, err)
			}
			return false
		}
		defer d.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(d.Fd()), &st); err != nil || (ID{st.Dev, st.Ino}) != want {
			t.Errorf("%s leads elsewhere, %v", name, err)
		}
		return true
	}
	for name, follows := range map[string]bool{
		"absolute": true, "relative": true,
		"elsewhere": false, "twice": false, "above": false, "tofile": false, "dangling": false, "stranger's": false,
	} {
		if opens(name) != follows {
			t.Errorf("%s is followed: %t", name, !follows)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if opens("absolute") {
		t.Error("a link is followed where anybody makes links")
	}
}
