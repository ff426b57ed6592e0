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
	// pingTime is how long an answer to a ping may take before a look is had at the
	// process: it may be stopped.
	pingTime = 100 * time.Millisecond
	// leaveTime bounds how long what a Keeper leaves may take to arrive after an answer.
	leaveTime = time.Second
)

// pingName is the socket, beside the lock, at which the process answers.
const pingName = ".ping"

// Answer has this process, which holds the lock at path, answer pings until it is
// closed. Who holds the lock and does not answer is replaced. The answer is what state
// returns, a line, or an empty one if it is nil: state waits for what the process
// cannot work without, so that a ping is not answered by one that hangs elsewhere. take
// is given what Keepers leave to the process while it runs; nil: nothing is taken.
func Answer(path string, state func() string, take func([]*os.File)) (io.Closer, error) {
	// What is there is of a process that has held the lock before.
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
		for {
			conn, err := l.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(pingTime / 10) // no descriptor is free, for instance
				continue
			}
			room <- struct{}{}
			go func() {
				defer func() { <-room }()
				answer(conn, state, take)
			}()
		}
	}()
	return answering{l}, nil
}

// maxAnswers bounds the answers under way: of a process that hangs none ends.
const maxAnswers = 16

// answer answers one ping, and takes what comes after it.
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

// answering is a process that answers.
type answering struct{ *host.Listener }

// Close implements io.Closer. The lock is closed after that.
func (a answering) Close() error { return a.Remove() }

// pinged is what came of a ping.
type pinged struct {
	conn   *net.UnixConn // nil if the process takes no more, or is not there
	pid    int           // as the kernel knows it; 0 if it is not for us to end
	answer string        // without its end
	silent bool          // it did not answer in time
}

// ping asks the process that answers for the lock at path. One that has no socket, yet
// or at all, is neither silent nor does it answer.
func ping(path string) (p pinged) {
	ctx, cancel := context.WithTimeout(context.Background(), pingTime)
	defer cancel()
	conn, err := host.DialUnix(ctx, "unix", path+pingName)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, context.DeadlineExceeded):
		p.silent = true // many have asked before
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

// wait waits for the answer, and reports whether there is one now, or nobody to give it.
func (p *pinged) wait(d time.Duration) bool {
	_ = p.conn.SetReadDeadline(time.Now().Add(d))
	line := make([]byte, maxAnswer)
	n, err := p.conn.Read(line)
	p.answer = strings.TrimSuffix(string(line[:n]), "\n")
	p.silent = errors.Is(err, os.ErrDeadlineExceeded)
	return !p.silent
}

// maxAnswer is the longest answer in bytes that is read.
const maxAnswer = 1 << 10

func (p *pinged) close() {
	if p.conn != nil {
		p.conn.Close()
	}
}

// hangs reports whether a process that has not answered goes on so for d, though it
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

// since is how long ago a ping was answered last, to any Keeper; false if nobody answers.
func since(path string, now time.Time) (time.Duration, bool) {
	info, err := os.Lstat(path + pingName)
	if err != nil {
		return 0, false
	}
	return now.Sub(info.ModTime()).Abs(), true
}

// answered leaves that a ping was answered for other Keepers.
func answered(path string, now time.Time) { (mark{now, now}).write(path + pingName) }
