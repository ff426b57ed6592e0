package keeper

import (
	"bytes"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mark is what the Keepers of all processes know together of the one that they keep:
// the times of the lock's file, which can be written also where the disk is full. So
// one that fails is not started again and again by each of many.
type mark struct {
	started time.Time // its time of access: when the process was started last
	next    time.Time // its time of modification: when it may be started again
}

// pause is how long after the last start the next one may be.
func (m mark) pause() time.Duration { return min(max(m.next.Sub(m.started), minRestart), maxRestart) }

// wait is how long it is until the next start. A mark that lies further ahead than any
// pause is of a clock that was set back.
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

// write leaves the mark for all. Where that fails, each Keeper knows its own.
func (m mark) write(path string) {
	times := []unix.Timespec{unix.NsecToTimespec(m.started.UnixNano()), unix.NsecToTimespec(m.next.UnixNano())}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW)
}

// lastWords is a file of a process's standard error, of which only the beginning is
// kept: it can be written to for as long as the process lives, whoever else ends.
type lastWords struct{ *os.File }

const maxWords = 4 << 10

func newLastWords() lastWords {
	fd, err := unix.MemfdCreate("stderr", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return lastWords{}
	}
	f := os.NewFile(uintptr(fd), "stderr")
	if f.Truncate(maxWords) != nil {
		f.Close()
		return lastWords{}
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		f.Close()
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
