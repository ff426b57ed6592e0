package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/host"
)

// link passes connections from the listening process to the reading one. A message is
// an Origin as JSON, with the connection's descriptor beside it.
type link struct{ *net.UnixConn }

const (
	// linkFDEnv names the descriptor of the reading process's end.
	linkFDEnv = "SHIMTRACE_FORWARD_FD"
	// linkMessage bounds a message in bytes; a path has at most 4096.
	linkMessage = 16 << 10
	// linkTimeout bounds the wait for room in the socket.
	linkTimeout = time.Second
)

// inheritedLink returns the link that this process was started with, nil if there is
// none.
func inheritedLink(getenv func(string) string) (*link, error) {
	text := getenv(linkFDEnv)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd <= 2 {
		return nil, fmt.Errorf("environment %s is set by forward --user for its own use, not by hand", linkFDEnv)
	}
	conn, err := host.UnixConn(os.NewFile(uintptr(fd), "link"))
	if err != nil {
		return nil, fmt.Errorf("environment %s: %w", linkFDEnv, err)
	}
	return &link{conn}, nil
}

// send passes a connection on; the caller closes its own copy.
func (l *link) send(conn listen.Conn, from listen.Origin) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T has no descriptor", conn)
	}
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	if err := l.SetWriteDeadline(time.Now().Add(linkTimeout)); err != nil {
		return err
	}
	return host.Send(l.UnixConn, text, sc)
}

// serve implements source. It also ends when the other side is gone.
func (l *link) serve(ctx context.Context, handle listen.Handler) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	text := make([]byte, linkMessage)
	for {
		n, files, err := host.Receive(l.UnixConn, text, 1)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err == nil && len(files) == 0 {
			err = errors.New("no descriptor came with it")
		}
		if err != nil {
			return fmt.Errorf("receive a connection: %w", err)
		}
		var from listen.Origin
		if err := json.Unmarshal(text[:n], &from); err != nil {
			files[0].Close()
			return fmt.Errorf("receive a connection: %w", err)
		}
		handle(files[0], from)
	}
}
