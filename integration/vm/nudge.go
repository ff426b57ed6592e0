package vm

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// nudges keep a guest's VSOCK device going. vhost-device-vsock 0.3.0 has a queue of
// connections that it has something for, and stops at one for which that is done already
// (process_rx_queue in vhu_vsock_thread.rs, on an error of recv_pkt). What is behind that
// one stays until the next event, whichever connection it is of. A guest that waits for it
// makes none.
type nudges struct {
	socket *os.File // the device's own, whoever has taken its path
	stop   chan struct{}
	done   chan struct{}
}

// nudgeEvery bounds for how long something stays.
const nudgeEvery = 20 * time.Millisecond

// nudge begins with it, for the device that has made the socket.
func (g *Guest) nudge(socket string) error {
	fd, err := unix.Open(socket, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the guest's socket %s: %w", socket, err)
	}
	n := &nudges{socket: os.NewFile(uintptr(fd), socket), stop: make(chan struct{}), done: make(chan struct{})}
	g.nudges = n
	go func() {
		defer close(n.done)
		tick := time.NewTicker(nudgeEvery)
		defer tick.Stop()
		for {
			n.once()
			select {
			case <-n.stop:
				return
			case <-tick.C:
			}
		}
	}()
	return nil
}

// once says a line that is no command, which ends the connection.
func (n *nudges) once() {
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d", n.socket.Fd()))
	if err != nil {
		return // it does not listen yet, or has ended
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, "\n"); err == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

func (n *nudges) end() {
	select {
	case <-n.stop:
		return // Close may be called again
	default:
	}
	close(n.stop)
	<-n.done
	n.socket.Close()
}
