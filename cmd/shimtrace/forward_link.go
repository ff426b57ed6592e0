package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
)

// link brings connections from the process that listens to the one that reads. A
// message is an Origin as JSON, with the connection's descriptor beside it.
type link struct{ *net.UnixConn }

const (
	// linkFDEnv names the descriptor of the reading process's end.
	linkFDEnv = "SHIMTRACE_FORWARD_FD"
	// linkMessage bounds a message in bytes; a path has at most 4096.
	linkMessage = 16 << 10
	// linkTimeout bounds how long the other side may take to make room.
	linkTimeout = time.Second
)

// inheritedLink returns the link that this process was started with, nil if none.
func inheritedLink(getenv func(string) string) (*link, error) {
	text := getenv(linkFDEnv)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd <= 2 {
		return nil, fmt.Errorf("environment %s is set by forward --user for its own use, not by hand", linkFDEnv)
	}
	f := os.NewFile(uintptr(fd), "link")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("environment %s: %w", linkFDEnv, err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("environment %s: not a Unix socket", linkFDEnv)
	}
	return &link{u}, nil
}

// send passes a connection on; the caller closes its own copy.
func (l *link) send(conn listen.Conn, from listen.Origin) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T has no descriptor", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	if err := l.SetWriteDeadline(time.Now().Add(linkTimeout)); err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { _, _, serr = l.WriteMsgUnix(text, unix.UnixRights(int(fd)), nil) }); err != nil {
		return err
	}
	return serr
}

// serve implements source: until ctx is done or the other side is gone.
func (l *link) serve(ctx context.Context, handle listen.Handler) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	text, oob := make([]byte, linkMessage), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := l.ReadMsgUnix(text, oob)
		if err != nil || n == 0 {
			return nil
		}
		conn, err := passedConn(oob[:oobn])
		if err != nil {
			return fmt.Errorf("receive a connection: %w", err)
		}
		var from listen.Origin
		if err := json.Unmarshal(text[:n], &from); err != nil {
			conn.Close()
			return fmt.Errorf("receive a connection: %w", err)
		}
		handle(conn, from)
	}
}

// passedConn returns the connection that came beside a message.
func passedConn(oob []byte) (listen.Conn, error) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, errors.New("no descriptor came with it")
	}
	fds, err := unix.ParseUnixRights(&all[0])
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "agent"), nil
}
