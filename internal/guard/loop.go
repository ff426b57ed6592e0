package guard

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// loop waits for descriptors of all kinds in one goroutine, which alone has the guard's
// state: a goroutine for each of a thousand links would take more memory than the rest.
type loop struct {
	epoll   int
	bell    int // an eventfd: something is posted
	watched map[int]func(events uint32)

	mu     sync.Mutex
	posted []func()
	closed bool
}

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &loop{epoll: epoll, bell: bell, watched: make(map[int]func(uint32))}
	return l, l.watch(bell, unix.EPOLLIN, func(uint32) {
		var b [8]byte
		_, _ = unix.Read(bell, b[:])
	})
}

// watch has f called in the loop when a descriptor is ready for one of the events.
func (l *loop) watch(fd int, events uint32, f func(events uint32)) error {
	op := unix.EPOLL_CTL_ADD
	if l.watched[fd] != nil {
		op = unix.EPOLL_CTL_MOD
	}
	if err := unix.EpollCtl(l.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	l.watched[fd] = f
	return nil
}

// close closes a descriptor that is watched. Others may have copies of it.
func (l *loop) close(fd int) {
	if l.watched[fd] != nil {
		delete(l.watched, fd)
		_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	}
	unix.Close(fd)
}

// post has f called in the loop, soon. It may be called by any goroutine, and returns false
// if the loop is over.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.posted = append(l.posted, f)
	_, _ = unix.Write(l.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return true
}

// after has f called in the loop after a while.
func (l *loop) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { l.post(f) })
}

// turn waits for something to do, and does it.
func (l *loop) turn() error {
	var events [32]unix.EpollEvent
	n, err := unix.EpollWait(l.epoll, events[:], -1)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("epoll: %w", err)
	}
	for _, e := range events[:max(n, 0)] {
		if f := l.watched[int(e.Fd)]; f != nil {
			f(e.Events)
		}
	}
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
	return nil
}

func (l *loop) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	unix.Close(l.bell)
	unix.Close(l.epoll)
}
