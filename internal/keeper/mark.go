package keeper

import (
	"bytes"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// mark is what the Keepers of all processes share, so that they do not each restart a
// process that fails. It is kept in the times of the lock's file, which can be written
// even when the disk is full.
type mark struct {
	started time.Time // atime: when the process was last started
	next    time.Time // mtime: when it may be started again
}

// pause returns how long after the last start the next one may be.
func (m mark) pause() time.Duration { return min(max(m.next.Sub(m.started), minRestart), maxRestart) }

// wait returns the time until the next start. A mark further ahead than any pause is from
// before the clock was set back.
func (m mark) wait(now time.Time) time.Duration {
	if wait := m.next.Sub(now); wait <= maxRestart {
		return wait
	}
	return 0
}

func readMark(path string) (m mark) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil {
		m.started, m.next = time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix())
	}
	return m
}

// write stores the mark for all Keepers. If that fails, each Keeper knows only its own.
func (m mark) write(path string) {
	times := []unix.Timespec{unix.NsecToTimespec(m.started.UnixNano()), unix.NsecToTimespec(m.next.UnixNano())}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW)
}

// lastWords is a file for a process's standard error that keeps only the beginning. The
// process can write to it as long as it lives, whichever processes end before.
type lastWords struct{ *os.File }

const maxWords = 4 << 10

func newLastWords() lastWords {
	f, err := host.Memory("stderr", maxWords, unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	if err != nil {
		return lastWords{}
	}
	return lastWords{f}
}

// last returns the last line.
func (w lastWords) last() string {
	if w.File == nil {
		return ""
	}
	text := make([]byte, maxWords)
	n, _ := w.ReadAt(text, 0)
	text = bytes.TrimSpace(bytes.TrimRight(text[:n], "\x00"))
	return strings.ToValidUTF8(string(text[bytes.LastIndexByte(text, '\n')+1:]), "?")
}
