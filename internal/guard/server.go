package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/private"
	"github.com/shimtrace/shimtrace/internal/procevents"
)

// socketName is the socket in the state directory that relays connect to.
const socketName = "guard.sock"

// LockPath is the file whose lock the guard of a state directory holds.
func LockPath(dir string) string { return filepath.Join(dir, "guard.lock") }

func socketPath(dir string) string { return filepath.Join(dir, socketName) }

// Options say what Run guards.
type Options struct {
	// Dir is the state directory of the relays, closed to others.
	Dir string
	// Moved returns a number for the memory of a connection. The number changes when bytes
	// are read or written. Nil: no relay is taken to hang.
	Moved func(memory int) (uint64, error)
	// VSOCK opens the port where agents connect; nil: nobody accepts there.
	VSOCK func() (fd int, err error)
	// Hold is how long a connection whose CID no relay has claimed waits there, unread,
	// before another relay gets it: the agent does not notice. 0: 10 s.
	Hold time.Duration
	// CID returns the CID of a peer; nil: of AF_VSOCK.
	CID func(unix.Sockaddr) uint32
	// Listener is the socket of a guard whose place this one takes, 0 for none.
	Listener int
	// Port is the descriptor that VSOCK has returned to that guard, 0 for none.
	Port int
	// Replace becomes a guard of another program, with these two; nil: that cannot be.
	// It returns only an error.
	Replace func(program string, listener, port int) error
	// Settle is called when there has been nothing to do for a few seconds, after there
	// was; nil: nothing is to be done then.
	Settle func()
	// Build is the version of the program.
	Build string
	// Logf is told what a person should know.
	Logf func(format string, args ...any)

	second  time.Duration   // between looks at who hangs; tests have shorter ones
	comesUp time.Duration   // how long a successor may take to come up
	backoff []time.Duration // before each attempt to follow a relay
	idle    time.Duration   // without relays, until it ends
}

// server is the guard. All but Run works in the loop.
type server struct {
	*loop
	opts      Options
	listener  int
	links     map[*link]struct{}
	relays    map[string]*relay // by ID
	buf       [maxPacket]byte
	ended     bool
	idleSince int      // counts the times that the last relay has gone
	env       []string // of the last relay that has registered
	port      port
	ticking   bool
	ticked    time.Time
	heard     bool // somebody has said something since Settle
	quiet     int  // looks since then
	processes procevents.Watcher
	files     files
}

// Run is the guard's life, until ctx is done or there have been no relays for a second.
// The caller holds the lock at LockPath.
func Run(ctx context.Context, opts Options) error {
	if opts.second == 0 {
		opts.second = time.Second
	}
	if opts.comesUp == 0 {
		opts.comesUp = 10 * opts.second
	}
	if opts.backoff == nil {
		opts.backoff = defaultBackoff
	}
	if opts.idle == 0 {
		opts.idle = time.Second
	}
	if opts.Hold == 0 {
		opts.Hold = 10 * time.Second
	}
	raiseFiles()
	l, err := newLoop()
	if err != nil {
		return err
	}
	s := &server{loop: l, opts: opts, listener: -1, links: make(map[*link]struct{}), relays: make(map[string]*relay)}
	s.processes.Failed = func(err error) { opts.Logf("guard: what inner shims execute is not recorded: %v", err) }
	s.files = files{server: s, inotify: -1, paths: make(map[string]*watchedPath)}
	defer s.close()
	if s.listener, err = listen(opts); err != nil {
		return err
	}
	if err := s.watch(s.listener, unix.EPOLLIN, func(uint32) { s.admit() }); err != nil {
		return err
	}
	s.endWhenIdle(10 * opts.idle) // whoever has started it is about to come
	defer context.AfterFunc(ctx, func() { s.post(func() { s.ended = true }) })()
	for !s.ended {
		if err := s.turn(); err != nil {
			return err
		}
	}
	return nil
}

// endWhenIdle ends the guard unless there is a relay soon.
func (s *server) endWhenIdle(soon time.Duration) {
	s.idleSince++
	since := s.idleSince
	s.after(soon, func() {
		if len(s.relays) == 0 && s.idleSince == since {
			s.ended = true
		}
	})
}

// raiseFiles lets this process have as many descriptors as the system allows it.
func raiseFiles() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
}

func listen(opts Options) (fd int, err error) {
	if opts.Listener > 0 {
		return opts.Listener, unix.SetNonblock(opts.Listener, true)
	}
	if err := private.MakeDir(opts.Dir); err != nil {
		return -1, fmt.Errorf("guard: %w", err)
	}
	l, err := host.ListenUnix("unixpacket", socketPath(opts.Dir))
	if err != nil {
		return -1, fmt.Errorf("guard: %w", err)
	}
	defer l.Close()
	err = host.Control(l, func(of int) (err error) {
		fd, err = unix.FcntlInt(uintptr(of), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("guard: %w", err)
	}
	return fd, nil
}

// admit takes in relays, and the operator's tool.
func (s *server) admit() {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
			s.acceptLater(s.listener, s.admit)
			return
		case err != nil:
			continue // the peer's end, for instance
		}
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || int(cred.Uid) != os.Geteuid() || len(s.links) >= maxRelays+maxStrangers {
			unix.Close(fd)
			continue
		}
		k := s.newLink(fd)
		if k == nil {
			continue
		}
		s.after(registerTime, func() {
			if k.relay == nil && !k.asked {
				s.drop(k)
			}
		})
	}
}

// acceptLater pauses a listener when there is no descriptor for its next connection. The
// listener stays ready: without a pause, the loop would spin.
func (s *server) acceptLater(listener int, accept func()) {
	_ = s.watch(listener, 0, func(uint32) {})
	s.after(acceptPause, func() { _ = s.watch(listener, unix.EPOLLIN, func(uint32) { accept() }) })
}

const (
	// maxStrangers bounds the links that have not registered.
	maxStrangers = 64
	// registerTime is how long a link may take to register.
	registerTime = 10 * time.Second
	// acceptPause is how long nobody is accepted when there is no descriptor for it.
	acceptPause = 100 * time.Millisecond
)

func (s *server) close() {
	for k := range s.links {
		s.drop(k)
	}
	for _, r := range s.relays {
		s.forget(r)
	}
	s.processes.Close()
	if s.files.inotify >= 0 {
		s.loop.close(s.files.inotify)
		s.files.inotify = -1
	}
	s.closePort()
	if s.listener >= 0 {
		_ = os.Remove(socketPath(s.opts.Dir)) // nobody else has it while this process has the lock
		s.loop.close(s.listener)
	}
	s.end()
}

// dial connects to the guard of a state directory.
func dial(dir string) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	link, err := host.DialUnix(ctx, "unixpacket", socketPath(dir))
	if err == nil {
		if err = host.CheckPeer(link, uint32(os.Geteuid())); err != nil {
			link.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the guard: %w", err)
	}
	return link, nil
}

// dialTime bounds a connect: it is immediate unless the guard's queue is full.
const dialTime = time.Second
