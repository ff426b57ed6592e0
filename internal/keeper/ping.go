package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pingTime is how long an answer to a ping may take before a look is had at the
	// process: it may be stopped.
	pingTime = 100 * time.Millisecond
	// hangTime is how long a process that is not stopped may leave pings without
	// answer: a busy machine is no reason to replace it.
	hangTime = 10 * time.Second
	// defaultEvery is how often a process is pinged, by all Keepers together.
	defaultEvery = 5 * time.Second
	// killTime bounds the wait for the end of a process that was killed.
	killTime = time.Second
)

// pingName is the socket, beside the lock, at which the process answers.
const pingName = ".ping"

// Answer has this process, which holds the lock at path, answer pings until it is
// closed. Who holds the lock and does not answer is replaced.
func Answer(path string) (io.Closer, error) {
	name, release, err := short(path + pingName)
	if err != nil {
		return nil, fmt.Errorf("answer pings: %w", err)
	}
	defer release()
	// What is there is of a process that has held the lock before.
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("answer pings: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("answer pings: %w", err)
	}
	l.SetUnlinkOnClose(false) // of the short name, which is no more by then
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(pingTime / 10) // no descriptor is free, for instance
				continue
			}
			_, _ = conn.Write([]byte{'\n'}) // there is room for that
			conn.Close()
		}
	}()
	return answering{l, path + pingName}, nil
}

// answering is a process that answers.
type answering struct {
	net.Listener
	path string
}

// Close implements io.Closer. The lock is closed after that.
func (a answering) Close() error {
	err := a.Listener.Close()
	return errors.Join(err, os.Remove(a.path))
}

// short returns a name for a socket's path that fits into an address, good until
// release.
func short(path string) (name string, release func(), err error) {
	const longest = 107 // unix(7), sun_path
	if len(path) <= longest {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { unix.Close(fd) }, nil
}

// silence is a process that did not answer a ping.
type silence struct {
	conn net.Conn // to it; nil if it takes no more
	pid  int      // as the kernel knows it; 0 if it is not for us to end
}

// ping asks the process that answers for the lock at path, and returns it if it does not
// answer in time. A process that has no socket, yet or at all, is not asked.
func ping(path string) *silence {
	name, release, err := short(path + pingName)
	if err != nil {
		return nil
	}
	defer release()
	d := net.Dialer{Timeout: pingTime}
	conn, err := d.Dial("unix", name)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded):
		return &silence{} // many have asked before
	case err != nil:
		return nil
	}
	s := &silence{conn: conn}
	_ = conn.SetReadDeadline(time.Now().Add(pingTime))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		conn.Close()
		return nil // it has answered, or ended
	}
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return s
	}
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && cred.Pid > 1 && int(cred.Uid) == os.Geteuid() {
			s.pid = int(cred.Pid)
		}
	})
	return s
}

func (s *silence) close() {
	if s.conn != nil {
		s.conn.Close()
	}
}

// stopped reports whether the process is stopped, by a signal or a debugger.
func (s *silence) stopped() bool {
	state := stateOf("/proc/" + strconv.Itoa(s.pid) + "/stat")
	return s.pid != 0 && (state == "T" || state == "t")
}

// maxThreads bounds the threads looked at of a process.
const maxThreads = 1024

// asleep reports whether no thread of the process runs or could. One that waits for a
// processor to answer could.
func (s *silence) asleep() bool {
	if s.pid == 0 {
		return false
	}
	dir, err := os.Open("/proc/" + strconv.Itoa(s.pid) + "/task")
	if err != nil {
		return false
	}
	defer dir.Close()
	threads, _ := dir.Readdirnames(maxThreads)
	for _, thread := range threads {
		if state := stateOf(dir.Name() + "/" + thread + "/stat"); state == "" || state == "R" {
			return false
		}
	}
	return len(threads) > 0
}

// stateOf returns the state in a stat file of /proc, a letter (proc_pid_stat(5)); empty
// if there is none.
func stateOf(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	// The name, which may hold anything, ends with the last parenthesis.
	state := bytes.TrimSpace(text[bytes.LastIndexByte(text, ')')+1:])
	return string(state[:min(len(state), 1)])
}

// pinged is how long ago a ping was answered last, to any Keeper.
func pinged(path string, now time.Time) time.Duration {
	info, err := os.Lstat(path + pingName)
	if err != nil {
		return 0 // nobody answers
	}
	return now.Sub(info.ModTime()).Abs()
}

// answered leaves that a ping was answered for other Keepers.
func answered(path string, now time.Time) { (mark{now, now}).write(path + pingName) }

// replace ends a process that holds the lock and does not answer, and returns the lock;
// nil if there is nothing to replace, or it cannot be ended.
func (k *Keeper) replace() *os.File {
	now := time.Now()
	pause := k.opts.Every * 3 / 4 // Watch's ticks are not that exact
	if now.Sub(k.looked) < pause || pinged(k.opts.Lock, now) < pause {
		return nil
	}
	k.looked = now
	s := ping(k.opts.Lock)
	if s == nil {
		k.silent, k.asleep = time.Time{}, 0
		answered(k.opts.Lock, now)
		return nil
	}
	defer s.close()
	if k.silent.IsZero() {
		k.silent = now
	}
	if k.asleep++; !k.opts.Awaited || !s.asleep() {
		k.asleep = 0
	}
	stopped, long := s.stopped(), now.Sub(k.silent) >= k.patience
	switch {
	case stopped, s.pid != 0 && (long || k.asleep > 1):
		if lock := k.end(s, stopped); lock != nil {
			return lock
		}
	case long:
		k.report(fmt.Errorf("the %s does not answer, and is not ours to end", k.opts.Name))
	}
	k.later(k.opts.Every)
	return nil
}

// end kills the process and waits for its lock.
func (k *Keeper) end(s *silence, stopped bool) *os.File {
	fd, err := unix.PidfdOpen(s.pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(fd)
	// If the pid had changed hands before that, the connection would have ended.
	if over, err := s.over(); over || err != nil {
		return nil
	}
	why := "hangs"
	if stopped {
		why = "is stopped"
	}
	k.leave(mark{time.Now(), time.Now()}) // its end is no failure of the next one's
	if k.opts.Killing != nil {
		k.opts.Killing()
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		k.report(fmt.Errorf("the %s, process %d, %s and cannot be ended: %w", k.opts.Name, s.pid, why, err))
		return nil
	}
	ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, _ := unix.Poll(ended, int(killTime.Milliseconds())); n == 0 {
		k.report(fmt.Errorf("the %s, process %d, %s and does not end: a call of a disk hangs, most likely", k.opts.Name, s.pid, why))
		return nil
	}
	k.opts.Logf("the %s, process %d, %s: it is replaced", k.opts.Name, s.pid, why)
	k.silent = time.Time{}
	lock, err := Lock(k.opts.Lock)
	if err != nil {
		return nil // another Keeper was faster
	}
	return lock
}

// over reports whether there is an answer by now, or nobody to give one.
func (s *silence) over() (bool, error) {
	raw, err := s.conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false, err
	}
	var fds [1]unix.PollFd
	var perr error
	err = raw.Control(func(fd uintptr) {
		fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}
		_, perr = unix.Poll(fds[:], 0)
	})
	return fds[0].Revents != 0, errors.Join(err, perr)
}
