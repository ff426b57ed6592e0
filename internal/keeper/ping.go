package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

const proc = host.Proc("/proc")

const (
	// pingTime bounds the wait for an answer to a ping before the process is examined: it
	// may be stopped.
	pingTime = 100 * time.Millisecond
	// leaveTime bounds the wait, after an answer, for files that a Keeper leaves.
	leaveTime = time.Second
)

// pingName is the suffix, after the lock's name, of the socket at which the process
// answers.
const pingName = ".ping"

// Answer makes this process, which holds the lock at path, answer pings until the
// returned Closer is closed. A process that holds the lock and does not answer is
// replaced. The answer is the line that state returns, empty if state is nil. state must
// wait for whatever the process cannot work without, so that a process that hangs does
// not answer. take gets the files that Keepers leave to the running process; nil: none
// are taken.
func Answer(path string, state func() string, take func([]*os.File)) (io.Closer, error) {
	// A socket that exists was left by an earlier holder of the lock.
	l, err := host.ListenUnix("unix", path+pingName)
	if err != nil {
		return nil, fmt.Errorf("answer pings: %w", err)
	}
	answered(path, time.Unix(0, 0)) // nobody has asked yet
	if state == nil {
		state = func() string { return "" }
	}
	go func() {
		room := make(chan struct{}, maxAnswers)
		_ = host.AcceptAll(context.Background(), l.AcceptUnix, func(conn *net.UnixConn) {
			room <- struct{}{}
			go func() {
				defer func() { <-room }()
				answer(conn, state, take)
			}()
		}, func(error) {})
	}()
	return answering{l}, nil
}

// maxAnswers bounds concurrent answers: in a process that hangs none ends.
const maxAnswers = 16

// answer answers one ping and takes the files that follow.
func answer(conn *net.UnixConn, state func() string, take func([]*os.File)) {
	defer conn.Close()
	line := state() + "\n"
	if _, err := conn.Write([]byte(line)); err != nil || take == nil {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(leaveTime))
	if _, files, err := host.Receive(conn, make([]byte, 1), maxLeft); err == nil && len(files) > 0 {
		take(files)
	}
}

// answering ends the answers of a process.
type answering struct{ *host.Listener }

// Close implements io.Closer. The lock must be closed after it.
func (a answering) Close() error { return a.Remove() }

// pinged is the result of a ping.
type pinged struct {
	conn   *net.UnixConn // nil if the process takes no more connections, or does not exist
	pid    int           // from the kernel; 0 if this process may not end it
	answer string        // without its newline
	silent bool          // it did not answer in time
}

// ping pings the process that answers for the lock at path. A process without a socket is
// not silent, and its answer is empty.
func ping(path string) (p pinged) {
	ctx, cancel := context.WithTimeout(context.Background(), pingTime)
	defer cancel()
	conn, err := host.DialUnix(ctx, "unix", path+pingName)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, context.DeadlineExceeded):
		p.silent = true // many others are waiting
		return p
	case err != nil:
		return p
	}
	p.conn = conn
	if peer, err := host.Peer(conn); err == nil && peer.Pid > 1 && int(peer.Uid) == os.Geteuid() {
		p.pid = int(peer.Pid)
	}
	p.wait(pingTime)
	return p
}

// wait waits up to d for the answer, and reports whether it has come, or cannot come any
// more.
func (p *pinged) wait(d time.Duration) bool {
	_ = p.conn.SetReadDeadline(time.Now().Add(d))
	line := make([]byte, maxAnswer)
	n, err := p.conn.Read(line)
	p.answer = strings.TrimSuffix(string(line[:n]), "\n")
	p.silent = errors.Is(err, os.ErrDeadlineExceeded)
	return !p.silent
}

// maxAnswer is the most bytes of an answer that are read.
const maxAnswer = 1 << 10

func (p *pinged) close() {
	if p.conn != nil {
		p.conn.Close()
	}
}

// hangs reports whether a process that has not answered stays silent for d although it
// could answer: none of its threads waits for a processor.
func (p *pinged) hangs(d time.Duration) bool {
	if p.conn == nil || p.pid == 0 {
		return false
	}
	before := proc.Threads(p.pid)
	if p.wait(d) {
		return false
	}
	return !host.Starved(before, proc.Threads(p.pid), d)
}

// since returns how long ago a ping of any Keeper was last answered; false if no process
// answers.
func since(path string, now time.Time) (time.Duration, bool) {
	info, err := os.Lstat(path + pingName)
	if err != nil {
		return 0, false
	}
	return now.Sub(info.ModTime()).Abs(), true
}

// answered notes for other Keepers that a ping was answered.
func answered(path string, now time.Time) { (mark{now, now}).write(path + pingName) }
