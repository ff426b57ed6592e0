package host

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// TCPSocket is a TCP socket of this network namespace that a process has open, or that
// waits to be accepted.
type TCPSocket struct {
	Local, Remote netip.AddrPort
	// Listening sockets have no remote address.
	Listening bool
	// Unread is how many bytes have arrived and were not read; for a listening socket,
	// how many connections were not accepted.
	Unread uint64
	// UID is the user that made the socket.
	UID uint32
	// Inode identifies the socket; 0: it has been closed, or is not accepted yet.
	Inode uint64
}

// maxList bounds a list of sockets, in bytes: 150 each for some 200,000.
const maxList = 32 << 20

// TCP calls tell for each TCP socket that has the port at either end. It reads the lists
// of all sockets, which takes milliseconds. After an error some may be missing.
func (p Proc) TCP(port uint16, tell func(TCPSocket)) error {
	lists := 0
	// An IPv6 socket that also speaks IPv4 has its IPv4 addresses in tcp6.
	for _, name := range []string{"tcp", "tcp6"} {
		err := scanTCP(filepath.Join(string(p), "net", name), port, tell)
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("sockets of this host: %w", err)
		}
		lists++
	}
	if lists == 0 {
		return fmt.Errorf("sockets of this host: %s has no list of them", filepath.Join(string(p), "net"))
	}
	return nil
}

// Columns of /proc/net/tcp and tcp6 (Linux, Documentation/networking/proc_net_tcp.rst).
const (
	columnLocal  = 1
	columnRemote = 2
	columnState  = 3
	columnQueues = 4
	columnUID    = 7
	columnInode  = 9

	stateListen = "0A"
)

func scanTCP(list string, port uint16, tell func(TCPSocket)) error {
	f, err := os.Open(list)
	if err != nil {
		return err
	}
	defer f.Close()
	bounded := &io.LimitedReader{R: f, N: maxList}
	text := fmt.Appendf(nil, ":%04X ", port)
	lines := bufio.NewScanner(bounded)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), text) {
			continue
		}
		if s, ok := parseTCP(lines.Bytes()); ok && (s.Local.Port() == port || s.Remote.Port() == port) {
			tell(s)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if bounded.N == 0 {
		return fmt.Errorf("%s is longer than %d bytes", list, maxList)
	}
	return nil
}

func parseTCP(line []byte) (s TCPSocket, ok bool) {
	fields := bytes.Fields(line)
	if len(fields) <= columnInode {
		return s, false
	}
	var okLocal, okRemote bool
	s.Local, okLocal = parseAddress(fields[columnLocal])
	s.Remote, okRemote = parseAddress(fields[columnRemote])
	s.Listening = string(fields[columnState]) == stateListen
	_, unread, okQueues := bytes.Cut(fields[columnQueues], []byte(":"))
	var errs [3]error
	s.Unread, errs[0] = strconv.ParseUint(string(unread), 16, 64)
	uid, err := strconv.ParseUint(string(fields[columnUID]), 10, 32)
	s.UID, errs[1] = uint32(uid), err
	s.Inode, errs[2] = strconv.ParseUint(string(fields[columnInode]), 10, 64)
	return s, okLocal && okRemote && okQueues && errors.Join(errs[:]...) == nil
}

// parseAddress reads an address as the kernel prints it: 32-bit words as numbers in the
// machine's byte order, then the port.
func parseAddress(text []byte) (netip.AddrPort, bool) {
	ip, port, ok := bytes.Cut(text, []byte(":"))
	if !ok {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(string(port), 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	raw, err := hex.AppendDecode(make([]byte, 0, 16), ip)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := raw; len(word) > 0; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), ok
}

// Holder is the process that listens at an address.
type Holder struct {
	UID uint32
	// PID and Program are of a process that has the socket open; 0 and empty if that
	// cannot be seen, which takes root.
	PID     int
	Program string
}

// String names the process and its user: "process 7 (nc) of user 65534".
func (h Holder) String() string {
	if h.PID == 0 {
		return fmt.Sprintf("a process of user %d", h.UID)
	}
	return fmt.Sprintf("process %d (%s) of user %d", h.PID, h.Program, h.UID)
}

// Foreign reports whether the user is neither root nor our own.
func (h Holder) Foreign() bool { return h.UID != 0 && int(h.UID) != os.Geteuid() }

// Holder returns the process that listens at an address of this host, or at its port on
// all addresses; false if none does.
func (p Proc) Holder(at netip.AddrPort) (h Holder, found bool, err error) {
	var inode uint64
	err = p.TCP(at.Port(), func(s TCPSocket) {
		if !s.Listening || s.Local.Port() != at.Port() || s.Local != at && !s.Local.Addr().IsUnspecified() {
			return
		}
		// If several share the port, prefer a foreign one.
		if next := (Holder{UID: s.UID}); !found || next.Foreign() && !h.Foreign() {
			h, found, inode = next, true, s.Inode
		}
	})
	if found && inode != 0 {
		h.PID = p.withSocket(inode)
		h.Program = p.name(h.PID)
	}
	return h, found, err
}

// withSocket returns the pid of a process that has the socket open, 0 if none is visible.
func (p Proc) withSocket(inode uint64) int {
	for _, pid := range p.All() {
		if p.HasSocket(pid, inode) {
			return pid
		}
	}
	return 0
}

// maxFiles bounds the open files looked at per process; most have some dozens.
const maxFiles = 16 << 10

// HasSocket reports whether a process has the socket open.
func (p Proc) HasSocket(pid int, inode uint64) bool {
	dir, err := os.Open(p.path(pid, "fd"))
	if err != nil {
		return false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxFiles)
	want := "socket:[" + strconv.FormatUint(inode, 10) + "]"
	to := make([]byte, 64)
	for _, name := range names {
		if n, err := unix.Readlinkat(int(dir.Fd()), name, to); err == nil && string(to[:n]) == want {
			return true
		}
	}
	return false
}

// name returns a process's name, made printable.
func (p Proc) name(pid int) string {
	text, err := readBounded(p.path(pid, "comm"), 64)
	if err != nil {
		return "?"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.TrimSuffix(string(text), "\n"))
}

// FirstUnprivilegedPort returns the first port that every user of this network namespace
// may open (net.ipv4.ip_unprivileged_port_start), 1024 if the kernel does not say.
func (p Proc) FirstUnprivilegedPort() int {
	text, err := readBounded(filepath.Join(string(p), "sys/net/ipv4/ip_unprivileged_port_start"), 16)
	if err != nil {
		return 1024
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 1024
	}
	return n
}
