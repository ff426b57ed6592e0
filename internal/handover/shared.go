package handover

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// idleTime is for how long a stream keeps the pages of what was large.
const idleTime = time.Second

// shared is what a stream in a memory has in addition.
type shared struct {
	account  *stream
	buffer   []byte
	address  uint64          // of buffer
	from, to syscall.RawConn // of source and sink
	tryRead  func(fd uintptr) bool
	trySend  func(fd uintptr) bool
	err      error
	source   source
	sink     sink // nil: it only reads
	stopped  atomic.Bool
	armed    bool // a deadline is set for reading
	empty    bool // nothing is buffered while it is read
	used     int  // bytes of the buffer that may have pages
}

var errNoMessage = errors.New("the system took no message")

func newShared(account *stream, buffer []byte, source source, sink sink, from, to syscall.RawConn) *shared {
	c := &shared{
		account: account, buffer: buffer, address: uint64(uintptr(unsafe.Pointer(&buffer[0]))),
		source: source, sink: sink, from: from, to: to, used: len(buffer),
	}
	account.read.use(&account.into)
	for i := range account.steps {
		account.steps[i].write.use(&account.from[0])
	}
	c.tryRead = func(fd uintptr) bool { c.err = c.receive(fd); return c.err != syscall.EAGAIN }
	c.trySend = func(fd uintptr) bool { c.err = c.sendSome(fd); return c.err != syscall.EAGAIN }
	return c
}

// read reads once behind what is buffered.
func (c *shared) read(s *Stream, n int) (int, error) {
	m := &c.account.read
	before := m.done()
	room := min(largeBuffer, bufferSize-s.w)
	if c.sink != nil {
		room = min(max(n, largeBuffer), bufferSize-s.w)
	}
	c.empty = s.w == 0
	c.account.into = vector{c.address + uint64(s.w), uint64(room)}
	m.begin(before)
	for {
		c.arm()
		if c.stopped.Load() {
			return 0, ErrStopped
		}
		err := c.from.Read(c.tryRead)
		if errors.Is(err, os.ErrDeadlineExceeded) && (c.armed || c.stopped.Load()) {
			_ = c.source.SetReadDeadline(time.Time{})
			c.armed = false
			c.giveBack(s.w)
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && c.late() {
			err = nil
		}
		if err == nil {
			err = c.err
		}
		got := int(m.done() - before)
		c.used = max(c.used, s.w+got)
		return got, err
	}
}

// late takes what is there although the deadline has passed, and reports whether there was
// anything: the deadline may have passed while the process had no processor.
func (c *shared) late() bool {
	return c.from.Control(func(fd uintptr) { c.err = c.receive(fd) }) == nil && c.err != syscall.EAGAIN
}

// receive takes what is there. The system reports a connection's error before it gives the
// bytes that came before the error (do_recvmmsg), and only once. receive reports the error
// after those bytes.
func (c *shared) receive(fd uintptr) error {
	m := &c.account.read
	before := m.done()
	for {
		errno := recvmmsg(fd, m)
		failed := syscall.Errno(c.account.failed)
		switch {
		case errno == 0 && m.done() != before:
			return nil
		case errno == syscall.EINTR:
		case failed != 0:
			return os.NewSyscallError("recvmmsg", failed)
		case errno == 0:
			return io.EOF
		case errno == syscall.EAGAIN:
			if c.sink == nil && c.empty && c.used > pageSize {
				c.giveBack(0)
			}
			return errno
		default:
			c.account.failed = uint32(errno)
		}
	}
}

// arm has the next read that waits end after a while if there are pages to give back. A
// stream that is only read gets much at once, and seldom: its pages are given back when all
// of that has been taken.
func (c *shared) arm() {
	if c.sink != nil && c.used > pageSize && !c.armed {
		c.armed = c.source.SetReadDeadline(time.Now().Add(idleTime)) == nil
	}
}

// giveBack gives back the pages of the buffer behind the first used bytes, but never the
// first page.
func (c *shared) giveBack(used int) {
	from := max(pageSize, (used+pageSize-1)&^(pageSize-1))
	if to := min((c.used+pageSize-1)&^(pageSize-1), len(c.buffer)); from < to && punch(c.buffer[from:to]) == nil {
		c.used = used
	}
}

// makeRoom moves what is buffered to the buffer's beginning if n bytes do not fit where it
// is. The two places never overlap, so that the bytes are whole in the old one until the
// account names the new one.
func (c *shared) makeRoom(s *Stream, n int) {
	have := s.w - s.r
	if s.r+n <= largeBuffer || have > s.r {
		return
	}
	copy(s.buf, s.buf[s.r:s.w])
	atomic.StoreUint64(&c.account.origin, c.account.step().at)
	s.r, s.w = 0, have
}

// rewind goes back to the buffer's beginning, when all that was in the buffer has been
// taken.
func (c *shared) rewind() { atomic.StoreUint64(&c.account.origin, c.account.step().at) }

// discard takes n bytes.
func (c *shared) discard(n int, m Mark) {
	now, next := c.account.step(), c.account.other()
	next.at, next.bytes, next.parts, next.mark = now.at+uint64(n), 0, 0, m
	c.account.flip()
}

// write writes the parts, which stand for the next n bytes.
func (c *shared) write(s *Stream, n, total int, parts [][]byte) error {
	now, next := c.account.step(), c.account.other()
	next.at, next.bytes, next.mark = now.at, uint32(n), now.mark
	next.write.begin(0)
	if !c.locate(next, parts) {
		// Too many to be kept where they are, or not of the buffer.
		free := s.w
		for _, p := range parts {
			if offset, ok := c.offset(p); ok {
				free = max(free, offset+len(p))
			}
		}
		if free+total > len(c.buffer) {
			return errNoRoom
		}
		joined := c.buffer[free:free]
		for _, p := range parts {
			joined = append(joined, p...)
		}
		c.locate(next, [][]byte{joined})
	}
	c.account.flip()
	return c.send()
}

var errNoRoom = errors.New("more than a stream has room for")

// locate puts down where the parts are, and reports whether all of them are in the
// buffer.
func (c *shared) locate(next *step, parts [][]byte) bool {
	next.parts = 0
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		offset, ok := c.offset(p)
		if !ok || next.parts == maxParts {
			return false
		}
		next.part[next.parts] = part{uint32(offset), uint32(len(p))}
		next.parts++
		c.used = max(c.used, offset+len(p))
	}
	return true
}

// offset returns where in the buffer a part is, if it is there.
func (c *shared) offset(p []byte) (at int, ok bool) {
	if len(p) == 0 {
		return 0, false
	}
	offset := uint64(uintptr(unsafe.Pointer(&p[0]))) - c.address
	return int(offset), offset < uint64(len(c.buffer))
}

// unfinished returns how many bytes the current write stands for.
func (c *shared) unfinished() int { return int(c.account.step().bytes) }

// send writes what the current step has not written.
func (c *shared) send() error {
	if c.sink == nil {
		return net.ErrClosed
	}
	err := c.to.Write(c.trySend)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.stopped.Load() {
		return ErrStopped
	}
	if err == nil {
		err = c.err
	}
	return err
}

// stop has reading and writing end. The flag is set before the deadlines, and looked at
// after one was set for reading.
func (c *shared) stop() {
	c.stopped.Store(true)
	now := time.Now()
	_ = c.source.SetReadDeadline(now)
	if c.sink != nil {
		_ = c.sink.SetWriteDeadline(now)
	}
}

// sendSome writes until all is written or the system takes no more.
func (c *shared) sendSome(fd uintptr) error {
	now := c.account.step()
	for {
		done := now.write.done()
		if now.write.count = c.rest(now, done); now.write.count == 0 {
			return nil
		}
		now.write.begin(done)
		switch errno := sendmmsg(fd, &now.write); {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return errno
		case errno != 0:
			return os.NewSyscallError("sendmmsg", errno)
		case now.write.done() == done:
			return errNoMessage
		}
	}
}

// rest has the vectors say what is behind the first done bytes of the parts, and returns
// their number.
func (c *shared) rest(now *step, done uint32) (n uint64) {
	for _, p := range now.part[:now.parts] {
		if done >= p.len {
			done -= p.len
			continue
		}
		c.account.from[n] = vector{c.address + uint64(p.offset+done), uint64(p.len - done)}
		done = 0
		n++
	}
	return n
}
