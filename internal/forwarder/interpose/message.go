package interpose

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

const (
	bufferSize = 64 << 10
)

// buffer is the memory for one read.
type buffer struct {
	data   [bufferSize]byte
	rights [4*host.MaxDescriptors + unix.SizeofCmsghdr + 4]byte
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// message is the result of one read: bytes, the first of which may carry descriptors.
type message struct {
	data   []byte
	passed []int
}

// reader reads from one end of a connection. It has a buffer only while there is
// something to read.
type reader struct {
	raw   syscall.RawConn
	try   func(fd uintptr) bool
	buf   *buffer
	now   message
	later message // the message after now
	err   error
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

// next waits for the next message and returns io.EOF at the end. The bytes are valid
// until the next call or release; the descriptors are the caller's to close.
func (r *reader) next() (data []byte, passed []int, err error) {
	if len(r.later.data) > 0 {
		r.now, r.later = r.later, message{}
		return r.now.data, r.now.passed, nil
	}
	r.release()
	if err := r.raw.Read(r.try); err != nil {
		return nil, nil, err
	}
	if r.err == nil && len(r.now.data) == 0 {
		return nil, nil, io.EOF
	}
	return r.now.data, r.now.passed, r.err
}

// release drops what next has not returned yet.
func (r *reader) release() {
	host.CloseAll(r.later.passed)
	if r.buf != nil {
		buffers.Put(r.buf)
	}
	r.buf, r.now, r.later = nil, message{}, message{}
}

// read reads what has arrived.
func (r *reader) read(fd int) error {
	r.buf = buffers.Get().(*buffer)
	n, bring, err := peek(fd, r.buf.data[:])
	if err != nil || n == 0 {
		return err
	}
	if bring {
		return r.separate(fd, n)
	}
	n, err = uninterrupted(func() (int, error) { return unix.Read(fd, r.buf.data[:n]) })
	r.now.data = r.buf.data[:max(n, 0)]
	return err
}

// separate reads the n bytes up to the end of a message with descriptors, as two
// messages: the bytes before it, and the message itself. One large read would return
// them together without saying where the descriptors belong. The receiver must know:
// its read without room for descriptors closes those that come with the bytes. So
// separate reads byte by byte until the descriptors come.
func (r *reader) separate(fd, n int) error {
	data := r.buf.data[:n]
	var passed []int
	at := 0
	for ; at < n && passed == nil; at++ {
		var err error
		if passed, err = readRights(fd, data[at:at+1], r.buf.rights[:]); err != nil {
			return err
		}
	}
	if passed == nil {
		r.now.data = data
		return nil
	}
	if at < n {
		m, err := uninterrupted(func() (int, error) { return unix.Read(fd, data[at:]) })
		if err != nil {
			host.CloseAll(passed)
			return err
		}
		n = at + m
	}
	r.now.data = data[:at-1]
	if r.later = (message{data[at-1 : n], passed}); at == 1 {
		r.now, r.later = r.later, message{}
	}
	return nil
}

// peek reads without consuming, up to the end of the first message with descriptors. It
// reports whether there is one, but not where it begins, which may be beyond data.
func peek(fd int, data []byte) (n int, bring bool, err error) {
	n, err = uninterrupted(func() (n int, err error) {
		var flags int
		n, _, flags, _, err = unix.Recvmsg(fd, data, nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		bring = flags&unix.MSG_CTRUNC != 0
		return n, err
	})
	return n, bring, err
}

// readRights reads bytes and the descriptors that come with them.
func readRights(fd int, data, space []byte) (passed []int, err error) {
	var rights, flags int
	if _, err := uninterrupted(func() (n int, err error) {
		n, rights, flags, _, err = unix.Recvmsg(fd, data, space, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		return n, err
	}); err != nil {
		return nil, err
	}
	return host.Descriptors(space[:rights], flags)
}

// write sends bytes, with descriptors beside the first one, and closes the descriptors.
func write(to *net.UnixConn, data []byte, passed []int) error {
	defer host.CloseAll(passed)
	if len(data) == 0 {
		return nil
	}
	return host.SendDescriptors(to, data, passed)
}

func uninterrupted(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
