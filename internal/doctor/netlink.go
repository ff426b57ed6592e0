package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// answerTime bounds the kernel's answer, in microseconds.
const answerTime = 500_000

// probeSockets asks the kernel for a TCP socket that there is none of (include/uapi/
// linux/inet_diag.h, inet_diag_req_v2). A list, which this asks for, is never "no such
// socket": ENOENT means that the module is missing.
func probeSockets() error {
	request := make([]byte, 56)
	request[0], request[1] = unix.AF_INET, unix.IPPROTO_TCP
	// No state: the list is empty.
	_, err := converse(unix.NETLINK_SOCK_DIAG, 0, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, request)
	return err
}

// probeProcessEvents asks the process connector to tell of processes, and awaits that it
// agrees (include/uapi/linux/cn_proc.h).
func probeProcessEvents() error {
	const procEvent, listen = 1, 1 // CN_IDX_PROC and CN_VAL_PROC, PROC_CN_MCAST_LISTEN
	request := make([]byte, 24)
	native := binary.NativeEndian
	native.PutUint32(request[0:], procEvent)
	native.PutUint32(request[4:], procEvent)
	native.PutUint16(request[16:], 4)
	native.PutUint32(request[20:], listen)
	_, err := converse(unix.NETLINK_CONNECTOR, procEvent, unix.NLMSG_DONE, 0, request)
	return err
}

// converse sends one message by netlink and returns the answer's payload.
func converse(family int, groups uint32, kind, flags uint16, payload []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: answerTime}); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	message := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(payload))
	native := binary.NativeEndian
	native.PutUint32(message[0:], uint32(cap(message)))
	native.PutUint16(message[4:], kind)
	native.PutUint16(message[6:], flags|unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, append(message, payload...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("send", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil, errors.New("the kernel does not answer")
	case err != nil:
		return nil, os.NewSyscallError("receive", err)
	case n < unix.NLMSG_HDRLEN:
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	if kind := native.Uint16(answer[4:]); kind == unix.NLMSG_ERROR && n >= unix.NLMSG_HDRLEN+4 {
		if errno := int32(native.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
			return nil, unix.Errno(-errno)
		}
	}
	return answer[unix.NLMSG_HDRLEN:n], nil
}
