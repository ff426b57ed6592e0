package route

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The kernel's interface for a single socket (sock_diag(7); Linux,
// include/uapi/linux/inet_diag.h: inet_diag_req_v2 and inet_diag_msg).
const (
	headerSize  = unix.SizeofNlMsghdr
	requestSize = headerSize + 56
	answerSize  = headerSize + 72

	sequenceAt      = 8
	requestFamily   = headerSize
	requestProtocol = headerSize + 1
	requestStates   = headerSize + 4
	requestIdentity = headerSize + 8

	answerFamily   = headerSize
	answerIdentity = headerSize + 4
	answerUID      = headerSize + 64
	answerInode    = headerSize + 68

	// Within an identity: ports and addresses in network byte order, an interface's
	// number, a cookie.
	identityPorts  = 0
	identityFrom   = 4
	identityTo     = 20
	identityCookie = 40
)

// diagnoser asks the kernel about single sockets. It keeps its netlink socket open,
// since there may be no free descriptor when it matters. The zero value is ready.
type diagnoser struct {
	mu       sync.Mutex
	fd       int // 0: not open
	sequence uint32
}

// open opens the netlink socket unless it is open.
func (d *diagnoser) open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opened()
}

// opened is open with the lock held.
func (d *diagnoser) opened() error {
	if d.fd > 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil { // the kernel
		unix.Close(fd)
		return os.NewSyscallError("connect", err)
	}
	d.fd = fd
	return nil
}

func (d *diagnoser) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd > 0 {
		unix.Close(d.fd)
		d.fd = 0
	}
}

// ask asks the kernel for the socket with local address from and remote address to. It
// returns errNoSocket if no process has it. The kernel answers the same if it lacks the
// module for TCP sockets.
func (d *diagnoser) ask(from, to netip.AddrPort) (socket, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.opened(); err != nil {
		return socket{}, err
	}
	if err := d.send(unix.SOCK_DIAG_BY_FAMILY, from, to); err != nil {
		return socket{}, err
	}
	native := binary.NativeEndian
	// The kernel has answered before write returns.
	var answer [512]byte
	for {
		n, err := unix.Read(d.fd, answer[:])
		if err != nil {
			return socket{}, os.NewSyscallError("read", err)
		}
		if n >= headerSize && native.Uint32(answer[sequenceAt:]) != d.sequence {
			continue // the answer to an earlier question that failed
		}
		return parseDiagnosis(answer[:n], from, to)
	}
}

// send sends a request about the socket between two addresses.
func (d *diagnoser) send(kind uint16, from, to netip.AddrPort) error {
	d.sequence++
	var request [requestSize]byte
	native := binary.NativeEndian
	native.PutUint32(request[0:], requestSize)
	native.PutUint16(request[4:], kind)
	native.PutUint16(request[6:], unix.NLM_F_REQUEST)
	native.PutUint32(request[sequenceAt:], d.sequence)
	request[requestFamily], request[requestProtocol] = unix.AF_INET6, unix.IPPROTO_TCP
	if from.Addr().Is4() {
		request[requestFamily] = unix.AF_INET // also finds IPv6 sockets that speak IPv4
	}
	native.PutUint32(request[requestStates:], ^uint32(0))
	identity := request[requestIdentity:]
	putIdentity(identity, from, to)
	native.PutUint64(identity[identityCookie:], ^uint64(0)) // INET_DIAG_NOCOOKIE: any socket
	_, err := unix.Write(d.fd, request[:])
	return os.NewSyscallError("write", err)
}

func putIdentity(b []byte, from, to netip.AddrPort) {
	binary.BigEndian.PutUint16(b[identityPorts:], from.Port())
	binary.BigEndian.PutUint16(b[identityPorts+2:], to.Port())
	copy(b[identityFrom:identityTo], from.Addr().AsSlice())
	copy(b[identityTo:identityTo+16], to.Addr().AsSlice())
}

// parseDiagnosis reads the kernel's answer. It returns errNoSocket for what lingers of
// a closed socket, and for a listener, which the kernel names if nobody is connected
// from there.
func parseDiagnosis(b []byte, from, to netip.AddrPort) (socket, error) {
	native := binary.NativeEndian
	if len(b) >= headerSize+4 && native.Uint16(b[4:]) == unix.NLMSG_ERROR {
		errno := unix.Errno(-int32(native.Uint32(b[headerSize:])))
		if errno == unix.ENOENT {
			return socket{}, errNoSocket
		}
		return socket{}, fmt.Errorf("sock_diag: %w", errno)
	}
	if len(b) < answerSize || native.Uint16(b[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return socket{}, fmt.Errorf("sock_diag: an answer of %d bytes", len(b))
	}
	identity := b[answerIdentity:]
	local, remote := parseIdentity(identity, b[answerFamily] == unix.AF_INET)
	s := socket{inode: uint64(native.Uint32(b[answerInode:])), uid: native.Uint32(b[answerUID:])}
	if local != from || remote != to || s.inode == 0 {
		return socket{}, errNoSocket
	}
	return s, nil
}

func parseIdentity(b []byte, four bool) (local, remote netip.AddrPort) {
	size := 16
	if four {
		size = 4
	}
	at := func(address, port int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(b[address : address+size])
		return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[port:]))
	}
	return at(identityFrom, identityPorts), at(identityTo, identityPorts+2)
}
