package runtimes

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

// sockets finds out whose connections to the endpoint are.
type sockets struct {
	proc procFS
	// diagnose asks the kernel for one socket, as diagnoser.ask does.
	diagnose func(from, to netip.AddrPort) (socket, error)
	// warn is told when that does not work.
	warn func(error)
}

// errNoDiag is why looking takes long. The kernel answers ENOENT for a module that is
// not there as it does for a socket (Linux, net/core/sock_diag.c and net/ipv4/inet_diag.c).
var errNoDiag = errors.New("the kernel does not tell of single TCP sockets: its modules inet_diag and tcp_diag are neither loaded nor built in. " +
	"Who posts is looked for in /proc/net/tcp instead, which takes longer the more connections the host has; \"modprobe tcp_diag\" mends that")

// find returns the sockets whose own addresses are these, and which are connected to an
// address of this host, where a process listens: errNoSocket for those that have been
// closed. The results are in the order of the addresses.
func (s *sockets) find(all []netip.AddrPort, to netip.AddrPort) []found {
	to = unmap(to)
	results := make([]found, len(all))
	var unknown []int
	for i, from := range all {
		r := &results[i]
		r.socket, r.err = s.diagnose(unmap(from), to)
		// That somebody listens there is certain.
		if errors.Is(r.err, errNoSocket) && !s.diagnoses(to) {
			r.err = errNoDiag
		}
		if r.err != nil && !errors.Is(r.err, errNoSocket) {
			unknown = append(unknown, i)
		}
	}
	if len(unknown) == 0 {
		return results
	}
	s.warn(results[unknown[0]].err)
	for range looksAtList {
		wanted := make(map[netip.AddrPort]int, len(unknown))
		for _, i := range unknown {
			if results[i].err != nil {
				results[i].err = errNoSocket
				wanted[unmap(all[i])] = i
			}
		}
		if len(wanted) == 0 {
			break
		}
		if err := s.proc.listed(to, func(from netip.AddrPort, got socket) {
			if i, ok := wanted[from]; ok {
				results[i] = found{socket: got}
			}
		}); err != nil {
			for _, i := range wanted {
				if results[i].err != nil {
					results[i].err = fmt.Errorf("who posts is found neither by sock_diag nor in /proc/net: %w", err)
				}
			}
		}
	}
	return results
}

// looksAtList is how often the list is looked at for a socket: while others come and go,
// the kernel may leave one out (Linux, net/ipv4/tcp_ipv4.c, tcp_seek_last_pos).
const looksAtList = 2

// found is what find has found.
type found struct {
	socket
	err error
}

// diagnoses reports whether the kernel tells of the socket that listens at an address.
func (s *sockets) diagnoses(at netip.AddrPort) bool {
	nobody := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if at.Addr().Is6() {
		nobody = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	_, err := s.diagnose(at, nobody)
	return err == nil
}

// listed tells of all sockets that are connected to the address, from the lists of all,
// which takes some ten milliseconds: for kernels that do not tell otherwise.
func (p procFS) listed(to netip.AddrPort, tell func(from netip.AddrPort, s socket)) error {
	lists := 0
	// A socket that can speak both has its IPv4 addresses in the list of IPv6.
	for _, list := range []string{"tcp", "tcp6"} {
		err := scan(filepath.Join(string(p), "net", list), to, tell)
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		lists++
	}
	if lists == 0 {
		return fmt.Errorf("sockets of this host: %s has no list of them", filepath.Join(string(p), "net"))
	}
	return nil
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

// maxList bounds a list in bytes: 150 for each of some 200,000 sockets.
const maxList = 32 << 20

// scan looks through a list of sockets. Those that have been closed, and linger for the
// protocol's sake, have no inode.
func scan(list string, to netip.AddrPort, tell func(from netip.AddrPort, s socket)) error {
	f, err := os.Open(list)
	if err != nil {
		return fmt.Errorf("sockets of this host: %w", err)
	}
	defer f.Close()
	bounded := &io.LimitedReader{R: f, N: maxList}
	port := fmt.Appendf(nil, ":%04X ", to.Port())
	lines := bufio.NewScanner(bounded)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), port) {
			continue
		}
		fields := bytes.Fields(lines.Bytes())
		if len(fields) <= columnInode {
			continue
		}
		if remote, ok := parseAddress(fields[columnRemote]); !ok || remote != to {
			continue
		}
		local, ok := parseAddress(fields[columnLocal])
		uid, err := strconv.ParseUint(string(fields[columnUID]), 10, 32)
		inode, ierr := strconv.ParseUint(string(fields[columnInode]), 10, 64)
		if ok && err == nil && ierr == nil && inode != 0 {
			tell(local, socket{inode: inode, uid: uint32(uid)})
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("sockets of this host: %w", err)
	}
	if bounded.N == 0 {
		return fmt.Errorf("sockets of this host: %s is longer than %d bytes", list, maxList)
	}
	return nil
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
