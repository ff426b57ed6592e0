package runtimes

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// procFS is a proc file system.
type procFS string

// socket is the other end of a connection to the endpoint.
type socket struct {
	inode uint64
	uid   uint32
}

// errNoSocket: no process of this network namespace has such a socket any more.
var errNoSocket = errors.New("no process has it")

// socketOf returns the socket whose own address is from, and which is connected to
// an address of this host: errNoSocket if it has been closed.
func (p procFS) socketOf(from, to netip.AddrPort) (socket, error) {
	from, to = unmap(from), unmap(to)
	s, err := diagnose(from, to)
	if err == nil || errors.Is(err, errNoSocket) {
		return s, err
	}
	return p.listed(from, to)
}

// listed looks for the socket in the lists of all, which takes some ten milliseconds:
// for kernels that do not tell otherwise.
func (p procFS) listed(from, to netip.AddrPort) (socket, error) {
	// A socket that can speak both has its IPv4 addresses in the list of IPv6.
	for _, list := range []string{"tcp", "tcp6"} {
		s, err := find(filepath.Join(string(p), "net", list), from, to)
		if err == nil || !errors.Is(err, errNoSocket) && !errors.Is(err, os.ErrNotExist) {
			return s, err
		}
	}
	return socket{}, errNoSocket
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// Columns of /proc/net/tcp and tcp6 (Linux, Documentation/networking/proc_net_tcp.rst).
const (
	columnLocal  = 1
	columnRemote = 2
	columnUID    = 7
	columnInode  = 9
)

// find looks through a list of sockets. Those that have been closed, and linger for
// the protocol's sake, have no inode.
func find(list string, from, to netip.AddrPort) (socket, error) {
	f, err := os.Open(list)
	if err != nil {
		return socket{}, fmt.Errorf("sockets of this host: %w", err)
	}
	defer f.Close()
	port := fmt.Appendf(nil, ":%04X ", from.Port())
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), port) {
			continue
		}
		fields := bytes.Fields(lines.Bytes())
		if len(fields) <= columnInode {
			continue
		}
		if local, ok := parseAddress(fields[columnLocal]); !ok || local != from {
			continue
		}
		if remote, ok := parseAddress(fields[columnRemote]); !ok || remote != to {
			continue
		}
		uid, err := strconv.ParseUint(string(fields[columnUID]), 10, 32)
		inode, ierr := strconv.ParseUint(string(fields[columnInode]), 10, 64)
		if err == nil && ierr == nil && inode != 0 {
			return socket{inode: inode, uid: uint32(uid)}, nil
		}
	}
	if err := lines.Err(); err != nil {
		return socket{}, fmt.Errorf("sockets of this host: %w", err)
	}
	return socket{}, errNoSocket
}

// parseAddress reads an address as the kernel prints it: words of 32 bits as numbers
// of the machine's own byte order, then the port.
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

// maxFiles bounds the open files looked at of one process; a runtime has some dozens.
const maxFiles = 16 << 10

// has tells whether a process has the socket open.
func (p procFS) has(pid int, inode uint64) bool {
	dir, err := os.Open(filepath.Join(string(p), strconv.Itoa(pid), "fd"))
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
