package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/procevents"
)

// answerTime bounds the kernel's answer, in microseconds.
const answerTime = 500_000

// probeSockets asks the kernel for a list of TCP sockets that is empty (include/uapi/
// linux/inet_diag.h, inet_diag_req_v2). The answer to such a request is never "no such
// socket", so ENOENT means that the module is missing.
func probeSockets() error {
	request := make([]byte, 56)
	request[0], request[1] = unix.AF_INET, unix.IPPROTO_TCP
	// No state: the list is empty.
	return ask(unix.NETLINK_SOCK_DIAG, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, request)
}

// probeProcessEvents asks for the events as the guard does.
func probeProcessEvents() error {
	s, err := procevents.Open()
	if err == nil {
		s.Close()
	}
	return err
}

// ask sends one request by netlink and awaits that the kernel takes it.
func ask(family int, kind, flags uint16, payload []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: answerTime}); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	message := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(payload))
	native := binary.NativeEndian
	native.PutUint32(message[0:], uint32(cap(message)))
	native.PutUint16(message[4:], kind)
	native.PutUint16(message[6:], flags|unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, append(message, payload...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("send", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return errors.New("the kernel does not answer")
	case err != nil:
		return os.NewSyscallError("receive", err)
	case n < unix.NLMSG_HDRLEN:
		return fmt.Errorf("an answer of %d bytes", n)
	}
	if kind := native.Uint16(answer[4:]); kind == unix.NLMSG_ERROR && n >= unix.NLMSG_HDRLEN+4 {
		if errno := int32(native.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
			return unix.Errno(-errno)
		}
	}
	return nil
}
