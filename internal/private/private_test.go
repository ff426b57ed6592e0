package private

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/testkit"
)

const nobody = 65534

// asRoot skips a test without root, except in CI: it makes other users' files.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs root")
	}
	t.Skip("files of other users need root")
}

var check = testkit.Check

func TestDirectories(t *testing.T) {
	asRoot(t)
	for _, tt := range []struct {
		name string
		make func(t *testing.T, dir string) string // returns the path to open, below our directory
		err  string                                // empty: it is private
	}{
		{"ours", func(t *testing.T, dir string) string { return dir }, ""},
		{"to be made", func(t *testing.T, dir string) string { return filepath.Join(dir, "a", "b") }, ""},
		{"below a sticky one", func(t *testing.T, dir string) string {
			check(t, os.Chmod(dir, 0o777|os.ModeSticky))
			return filepath.Join(dir, "a")
		}, ""},
		{"sticky itself", func(t *testing.T, dir string) string {
			check(t, os.Chmod(dir, 0o777|os.ModeSticky))
			return dir
		}, "can be written to by others"},
		{"below one that all may write to", func(t *testing.T, dir string) string {
			check(t, os.Chmod(dir, 0o777))
			return filepath.Join(dir, "a")
		}, "can be written to by others"},
		{"of a group", func(t *testing.T, dir string) string {
			check(t, os.Chown(dir, 0, nobody))
			check(t, os.Chmod(dir, 0o770))
			return dir
		}, "can be written to by others"},
		{"of another user", func(t *testing.T, dir string) string {
			check(t, os.Chown(dir, nobody, nobody))
			return dir
		}, "belongs to user 65534"},
		{"ours, in another user's", func(t *testing.T, dir string) string {
			check(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
			check(t, os.Chown(dir, nobody, nobody))
			return filepath.Join(dir, "a")
		}, "belongs to user 65534"},
		{"another user's link to ours", func(t *testing.T, dir string) string {
			check(t, os.Chmod(dir, 0o777|os.ModeSticky))
			check(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
			check(t, os.Symlink("a", filepath.Join(dir, "b")))
			check(t, os.Lchown(filepath.Join(dir, "b"), nobody, nobody))
			return filepath.Join(dir, "b")
		}, "is a link of user 65534"},
		{"our link to ours", func(t *testing.T, dir string) string {
			check(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
			check(t, os.Symlink("../"+filepath.Base(dir)+"/a", filepath.Join(dir, "b")))
			return filepath.Join(dir, "b", "c")
		}, ""},
		{"our link to another user's", func(t *testing.T, dir string) string {
			check(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
			check(t, os.Chown(filepath.Join(dir, "a"), nobody, nobody))
			check(t, os.Symlink(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
			return filepath.Join(dir, "b")
		}, "belongs to user 65534"},
		{"a circle of links", func(t *testing.T, dir string) string {
			check(t, os.Symlink("b", filepath.Join(dir, "b")))
			return filepath.Join(dir, "b")
		}, "too many levels"},
		{"a file", func(t *testing.T, dir string) string {
			check(t, os.WriteFile(filepath.Join(dir, "a"), nil, 0o600))
			return filepath.Join(dir, "a")
		}, "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.make(t, t.TempDir())
			err := MakeDir(path)
			if tt.err == "" {
				if err == nil {
					err = CheckDir(path)
				}
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, want …%s…", err, tt.err)
			}
		})
	}
	if err := CheckDir(filepath.Join(t.TempDir(), "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}

// TestAUsersOwn: a user who is not root has directories that his own group may write to.
func TestAUsersOwn(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	check(t, os.Chown(dir, 1000, 1000))
	check(t, os.Chmod(dir, 0o775))
	for _, tt := range []struct {
		uid, gid uint32
		ok       bool
	}{{1000, 1000, true}, {1000, 1001, false}, {1001, 1000, false}, {0, 0, false}} {
		if err := walk(dir, tt.uid, tt.gid); (err == nil) != tt.ok {
			t.Errorf("for user %d of group %d: %v", tt.uid, tt.gid, err)
		}
	}
}

func TestOpenRegularFilesOnly(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	check(t, os.WriteFile(path("file"), []byte("x"), 0o600))
	check(t, os.Symlink("file", path("link")))
	check(t, unix.Mkfifo(path("pipe"), 0o600))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	check(t, err)
	defer unix.Close(fd)
	check(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path("socket")}))
	for _, name := range []string{"link", "pipe", "socket", "."} {
		for _, flag := range []int{os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE} {
			began := time.Now()
			if name == "." && flag != os.O_RDONLY {
				continue // the kernel says so itself
			}
			if _, err := Open(path(name), flag, 0o600); !errors.Is(err, ErrNotRegular) {
				t.Errorf("%s: %v", name, err)
			}
			if waited := time.Since(began); waited > 10*time.Second {
				t.Errorf("%s: it waited %v", name, waited)
			}
		}
	}
	f, err := Open(path("file"), os.O_RDONLY, 0)
	check(t, err)
	f.Close()
	if _, err := Open(path("none"), os.O_RDONLY, 0); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestReadIsBounded, and is of files that Open opens.
func TestReadIsBounded(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	check(t, os.WriteFile(path("file"), []byte("abc"), 0o600))
	check(t, os.Symlink("file", path("link")))
	for limit, want := range []string{"", "a", "ab", "abc", "abc"} {
		if text, err := Read(path("file"), int64(limit)); err != nil || string(text) != want {
			t.Errorf("%d bytes: %q, %v", limit, text, err)
		}
	}
	if _, err := Read(path("link"), 3); !errors.Is(err, ErrNotRegular) {
		t.Error(err)
	}
	if _, err := Read(path("none"), 3); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestReplaceFollowsNoLink in the place of the file or of the one that is to become it.
func TestReplaceFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	check(t, os.WriteFile(victim, []byte("as it was"), 0o600))
	path, tmp := filepath.Join(dir, "f"), filepath.Join(dir, "f.tmp")
	check(t, os.Symlink(victim, path))
	check(t, os.Symlink(victim, tmp))
	check(t, Replace(path, tmp, []byte("new"), 0o600))
	for name, want := range map[string]string{victim: "as it was", path: "new"} {
		if text, err := os.ReadFile(name); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if _, err := os.Lstat(tmp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", tmp, err)
	}
}
