package keeper

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxLeft bounds the files that are left at once.
const maxLeft = 8

// leave leaves files to the process that has answered a ping.
func (p *pinged) leave(files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	_, _, err := p.conn.WriteMsgUnix([]byte{'\n'}, unix.UnixRights(fds...), nil)
	return err
}

// receive returns the files that come over a connection, none if it ends without.
func receive(conn *net.UnixConn) (files []*os.File) {
	oob := make([]byte, unix.CmsgSpace(4*maxLeft))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "left"))
		}
	}
	return files
}

// refuse has nobody wait at sockets that nobody serves: those who wait are reset, and
// who comes is refused, whatever process has them open.
func refuse(files []*os.File) {
	for _, f := range files {
		if raw, err := f.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
		}
	}
}
