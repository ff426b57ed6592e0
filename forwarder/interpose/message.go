package interpose

import (
	"errors"
	"io"
	"net"
	"sort"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	bufferSize = 64 << 10
	// maxDescriptors is how many one message can carry (Linux, SCM_MAX_FD).
	maxDescriptors = 253
)

// buffer is what is read into.
type buffer struct {
	data   [bufferSize]byte
	rights [4*maxDescriptors + unix.SizeofCmsghdr + 4]byte
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// reader reads from one end of a connection. It has a buffer only while there is
// something to read.
type reader struct {
	raw    syscall.RawConn
	try    func(fd uintptr) bool
	buf    *buffer
	data   []byte
	passed []int // descriptors that came with the first byte of data
	err    error
}

func newReader(conn *net.UnixConn) (*reader, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &reader{raw: raw}
	r.try = func(fd uintptr) bool {
		r.err = r.read(int(fd))
		if errors.Is(r.err, unix.EAGAIN) {
			r.release()
			return false
		}
		return true
	}
	return r, nil
}

// next waits for what comes next: bytes, of which the first may bring descriptors,
// which are the caller's; io.EOF at the end. The bytes are valid until release.
func (r *reader) next() (data []byte, passed []int, err error) {
	r.release()
	if err := r.raw.Read(r.try); err != nil {
		return nil, nil, err
	}
	if r.err == nil && len(r.data) == 0 {
		return nil, nil, io.EOF
	}
	return r.data, r.passed, r.err
}

func (r *reader) release() {
	if r.buf != nil {
		buffers.Put(r.buf)
	}
	r.buf, r.data, r.passed = nil, nil, nil
}

// errDescriptors: there were descriptors, and no room for them.
var errDescriptors = errors.New("descriptors cannot be passed on")

// read takes what is there up to the byte that brings descriptors, or from that
// byte on. The system would give both at once, and say no more which byte it was,
// but to who receives them it matters: a read without descriptors in mind closes
// those that come with its bytes.
func (r *reader) read(fd int) error {
	r.buf = buffers.Get().(*buffer)
	data := r.buf.data[:]
	n, brings, err := peek(fd, data)
	if err != nil || n == 0 {
		return err
	}
	if brings {
		n = sort.Search(n, func(i int) bool {
			_, brings, err := peek(fd, data[:i+1])
			return brings || err != nil
		})
		if n == 0 {
			return r.readRights(fd)
		}
	}
	n, err = uninterrupted(func() (int, error) { return unix.Read(fd, data[:n]) })
	if err != nil {
		return err
	}
	r.data = data[:n]
	return nil
}

// peek reads without taking, and tells whether descriptors come with the bytes.
func peek(fd int, data []byte) (n int, brings bool, err error) {
	n, err = uninterrupted(func() (n int, err error) {
		var flags int
		n, _, flags, _, err = unix.Recvmsg(fd, data, nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		brings = flags&unix.MSG_CTRUNC != 0
		return n, err
	})
	return n, brings, err
}

// readRights takes descriptors, and the bytes of their message.
func (r *reader) readRights(fd int) error {
	var rights, flags int
	n, err := uninterrupted(func() (n int, err error) {
		n, rights, flags, _, err = unix.Recvmsg(fd, r.buf.data[:], r.buf.rights[:], unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		return n, err
	})
	if err != nil {
		return err
	}
	r.data = r.buf.data[:n]
	messages, err := unix.ParseSocketControlMessage(r.buf.rights[:rights])
	for i := range messages {
		var fds []int
		if fds, err = unix.ParseUnixRights(&messages[i]); err != nil {
			break
		}
		r.passed = append(r.passed, fds...)
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = errDescriptors
	}
	if err != nil {
		closeAll(r.passed)
		r.passed = nil
	}
	return err
}

// write writes bytes, the first of them with descriptors, and closes these.
func write(to *net.UnixConn, data []byte, passed []int) error {
	if len(passed) > 0 {
		defer closeAll(passed)
		n, _, err := to.WriteMsgUnix(data, unix.UnixRights(passed...), nil)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	if len(data) == 0 {
		return nil
	}
	_, err := to.Write(data)
	return err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func uninterrupted(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
