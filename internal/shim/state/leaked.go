package state

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

const (
	// startLocks is the number of files whose locks are held during starts. They stay:
	// a file for each sandbox would have to be removed as well.
	startLocks = 64
	// StartPatience bounds how long a start waits for whoever clears away a socket, which
	// takes next to no time. The start goes on in any case.
	StartPatience = 50 * time.Millisecond
	// clearPatience bounds how long one waits for starts to clear away a socket. If it
	// stays, the next shim at its address removes it.
	clearPatience = 5 * time.Second
)

// StartLock returns the path of the file whose lock the starts of a sandbox's inner shim
// share: whoever has the lock alone knows that no start is under way. dir is the directory
// of the relays' files.
func StartLock(dir, namespace, sandbox string) string {
	sum := sha256.Sum256([]byte(namespace + "\x00" + sandbox))
	return filepath.Join(dir, fmt.Sprintf("start-%02d.lock", sum[0]%startLocks))
}

// LockStart takes a start lock, alone or shared, within the time given.
func LockStart(path string, how int, patience time.Duration) (release func(), ok bool) {
	f, err := host.LockFile(path, how, patience)
	if err != nil {
		return func() {}, false
	}
	return func() { f.Close() }, true
}

// RemoveLeakedSocket removes the inner shim's socket if nobody listens on it: a 1.7 runc
// shim unlinks the path in its address file at exit, where ours is now, and leaves its own.
// Meanwhile no other shim of the sandbox starts: it would put its socket there, and between
// bind and listen that looks like a leaked one.
func (st *State) RemoveLeakedSocket() {
	path := st.InnerSock
	if strings.HasPrefix(path, "\x00") || !filepath.IsAbs(st.RelaySock) {
		return
	}
	release, alone := LockStart(StartLock(filepath.Dir(st.RelaySock), st.Namespace, st.Sandbox), unix.LOCK_EX, clearPatience)
	if !alone {
		return
	}
	defer release()
	before, err := os.Lstat(path)
	if err != nil || before.Mode().Type() != os.ModeSocket {
		return
	}
	conn, err := Dial(path)
	if err == nil {
		conn.Close()
		return
	}
	if now, serr := os.Lstat(path); serr == nil && os.SameFile(now, before) && errors.Is(err, unix.ECONNREFUSED) {
		_ = os.Remove(path)
	}
}
