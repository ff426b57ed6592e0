package procevents

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// Source is the process events of the host.
type Source struct {
	events, alarm int // sockets; the latter has the forks of a few processes only
	// ready is an epoll that is armed for one event at a time: what comes while nobody
	// waits for it wakes nobody.
	ready *os.File
	mu    sync.Mutex
	woken bool

	pages [batch][messageSize]byte
	from  [batch]unix.RawSockaddrNetlink
	iov   [batch]unix.Iovec
	heads [batch]header
	drops uint32
}

// header is struct mmsghdr.
type header struct {
	unix.Msghdr
	n uint32
}

const (
	// batch is how many datagrams are read by one system call.
	batch = 64
	// messageSize bounds one; the kernel's have 76 bytes, and were never longer than 80.
	messageSize = 128
	// room is the socket's buffer in bytes: enough for some tens of milliseconds of a fork
	// bomb.
	room = 4 << 20
	// ackTime is how long the kernel may take to say that it will send events.
	ackTime = time.Second
)

// Open has the kernel send its process events. It needs CAP_NET_ADMIN in the host's own
// namespaces, and a kernel with CONFIG_PROC_EVENTS; the error says what is missing.
func Open() (*Source, error) {
	s, err := open()
	if errors.Is(err, unix.ECONNREFUSED) {
		s, err = openElsewhere()
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("the kernel's process events need CAP_NET_ADMIN in the host's namespaces: %w", err)
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return nil, fmt.Errorf("this kernel has no process events (CONFIG_PROC_EVENTS): %w", err)
	case err != nil:
		return nil, fmt.Errorf("the kernel's process events: %w", err)
	}
	return s, nil
}

// openElsewhere opens the events from another network namespace: only the host's own
// namespace has the connector, and the oldest processes are in that.
func openElsewhere() (s *Source, err error) {
	err = unix.ECONNREFUSED
	var tried []host.File
	for _, pid := range host.Proc("/proc").All() {
		path := "/proc/" + strconv.Itoa(pid) + "/ns/net"
		ns, ferr := host.FileOf(path)
		if ferr != nil || slices.Contains(tried, ns) {
			continue
		}
		if tried = append(tried, ns); len(tried) > maxNetworks {
			return nil, err
		}
		werr := within(path, func() (err error) {
			s, err = open()
			return err
		})
		if !errors.Is(werr, unix.ECONNREFUSED) && s != nil {
			return s, werr
		}
	}
	return nil, err
}

// maxNetworks bounds the network namespaces that are tried.
const maxNetworks = 16

// within calls f in another network namespace, on a thread that is of no other use.
func within(path string, f func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func open() (_ *Source, err error) {
	s := &Source{events: -1, alarm: -1}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.alarm, err = subscribe(forksOf(nil)); err != nil {
		return nil, err
	}
	if s.events, err = subscribe(filter()); err != nil {
		return nil, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	_ = unix.SetNonblock(epoll, true) // which has package os wait for it
	s.ready = os.NewFile(uintptr(epoll), "process events")
	for _, fd := range []int{s.events, s.alarm} {
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Fd: int32(fd)}); err != nil {
			return nil, err
		}
	}
	for i := range s.heads {
		s.iov[i].Base = &s.pages[i][0]
		s.iov[i].SetLen(messageSize)
		h := &s.heads[i].Msghdr
		h.Name = (*byte)(unsafe.Pointer(&s.from[i]))
		h.Iov = &s.iov[i]
		h.SetIovlen(1)
	}
	if unix.SetsockoptInt(s.events, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil {
		_ = unix.SetsockoptInt(s.events, unix.SOL_SOCKET, unix.SO_RCVBUF, room)
	}
	if err := unix.Sendto(s.events, request(opListen), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	return s, s.acknowledged()
}

// subscribe returns a socket that gets the events that a filter lets through.
func subscribe(program []unix.SockFilter) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return -1, err
	}
	if err = attach(fd, program); err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: connectorProc})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// errSilent is returned for a kernel that says nothing, as it does outside the host's own
// process and user namespaces.
var errSilent = fmt.Errorf("no answer from the kernel: %w", unix.EPERM)

// acknowledged waits until the kernel says that it sends events.
func (s *Source) acknowledged() error {
	var answer error
	answered := false
	for end := time.Now().Add(ackTime); !answered; {
		wait := time.Until(end)
		if wait <= 0 {
			return errSilent
		}
		err := s.read(wait, func(event) {}, func(errno uint32) {
			answered = true
			if errno != 0 {
				answer = unix.Errno(errno)
			}
		})
		if err != nil {
			return err
		}
	}
	return answer
}

// Read waits for events, at most as long as given or until Wake, and calls f with each that
// has come, in order; at most batch at once. lost is how many the kernel has dropped before
// these, since nobody has read in time.
func (s *Source) Read(wait time.Duration, f func(event)) (lost int, err error) {
	err = s.read(wait, f, func(uint32) {})
	if !errors.Is(err, unix.ENOBUFS) {
		return 0, err
	}
	// The kernel drops all events until those that wait are read, and says so once.
	for range maxWaiting {
		n, err := s.take(f, func(uint32) {})
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return 0, err
		}
		if err == nil && n == 0 {
			break
		}
	}
	return s.lost(), nil
}

// maxWaiting bounds how many batches are read at once.
const maxWaiting = 1000

// forever is a wait without an end.
const forever = time.Duration(-1)

func (s *Source) read(wait time.Duration, f func(event), ack func(errno uint32)) error {
	if n, err := s.take(f, ack); n > 0 || err != nil {
		return err
	}
	if err := s.await(s.events, wait); err != nil {
		return err
	}
	_, err := s.take(f, ack)
	return err
}

// await waits until a socket is ready, at most as long as given, or until Wake.
func (s *Source) await(socket int, wait time.Duration) error {
	s.mu.Lock()
	if s.woken {
		s.woken = false
		s.mu.Unlock()
		return nil
	}
	var limit time.Time
	if wait >= 0 {
		limit = time.Now().Add(wait)
	}
	err := s.ready.SetReadDeadline(limit)
	s.mu.Unlock()
	if err == nil {
		err = s.arm(socket, unix.EPOLLIN|unix.EPOLLONESHOT)
	}
	if err != nil {
		return err
	}
	raw, err := s.ready.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(epoll uintptr) bool {
		var events [2]unix.EpollEvent
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		return errno == 0 && n > 0 || errno != 0 && errno != unix.EINTR
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return s.arm(socket, 0)
	}
	return err
}

func (s *Source) arm(socket int, events uint32) error {
	return host.Control(s.ready, func(epoll int) error {
		return unix.EpollCtl(epoll, unix.EPOLL_CTL_MOD, socket, &unix.EpollEvent{Events: events, Fd: int32(socket)})
	})
}

// Wake ends a Read or a Pause, or the next one. It may be called by any goroutine.
func (s *Source) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.woken = true
	_ = s.ready.SetReadDeadline(time.Unix(1, 0))
}

// Alarm has Pause end when one of these processes forks.
func (s *Source) Alarm(pids []int) { _ = attach(s.alarm, forksOf(pids)) }

// Pause waits as long as given, or until an alarm or Wake.
func (s *Source) Pause(d time.Duration) error {
	if err := s.await(s.alarm, d); err != nil {
		return err
	}
	var b [messageSize]byte
	for range batch {
		if _, _, err := unix.Recvfrom(s.alarm, b[:], unix.MSG_DONTWAIT); err == unix.EAGAIN {
			break
		}
	}
	return nil
}

// take takes what has come, at most batch datagrams, and returns how many. Go's runtime is not
// told of the system call, as in await, since that does not wait: it would wake its monitor.
func (s *Source) take(f func(event), ack func(errno uint32)) (int, error) {
	for i := range s.heads {
		s.heads[i].Namelen = unix.SizeofSockaddrNetlink
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.events), uintptr(unsafe.Pointer(&s.heads[0])), batch, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
	case unix.EINTR, unix.EAGAIN:
		return 0, nil
	default:
		return 0, errno
	}
	for i := range s.heads[:int(n)] {
		if s.from[i].Pid != 0 {
			continue // not the kernel's
		}
		_ = parse(s.pages[i][:min(s.heads[i].n, messageSize)], f, ack)
	}
	return int(n), nil
}

// lost returns how many events were dropped since its last call, at least 1.
func (s *Source) lost() int {
	var info [9]uint32 // SK_MEMINFO_VARS; the last one is SK_MEMINFO_DROPS
	size := uint32(unsafe.Sizeof(info))
	dropped := uint32(1)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.events), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 && size == uint32(unsafe.Sizeof(info)) {
		dropped, s.drops = info[8]-s.drops, info[8]
	}
	return max(1, int(dropped))
}

// Close ends the Source. Nobody may read from it any more.
func (s *Source) Close() {
	if s.ready != nil {
		s.ready.Close()
	}
	if s.events >= 0 {
		_ = unix.Sendto(s.events, request(opIgnore), unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		unix.Close(s.events)
	}
	if s.alarm >= 0 {
		unix.Close(s.alarm)
	}
}
