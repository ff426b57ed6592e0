package guard

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// successor is a process that is to follow a relay, and has not registered.
type successor struct {
	relay   *relay
	link    *link
	pid     int
	pidfd   int // -1 until it is started
	standby bool
	dry     bool // it is only asked whether it could
	told    bool // to go on
	late    *time.Timer
}

// defaultBackoff is how long the guard waits before each attempt to follow a relay:
// containerd's calls wait meanwhile.
var defaultBackoff = []time.Duration{0, 20 * time.Millisecond, 250 * time.Millisecond, time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second}

// follow has a process go on for a relay that has ended.
func (s *server) follow(r *relay, cause Cause) {
	if n := r.next; n != nil && n.pidfd >= 0 && !n.dry {
		n.standby = false
		s.tell(n, cause)
		return
	}
	if r.attempt >= len(s.opts.backoff) {
		s.logf(r.who, "sandbox %s is without a relay: %d in a row did not stay; containerd is to clean it up", r.who.Sandbox, r.attempt)
		s.forget(r)
		return
	}
	pause := s.opts.backoff[r.attempt]
	r.attempt++
	n := &successor{relay: r, pidfd: -1}
	if r.next != nil {
		s.discard(r.next)
	}
	r.next = n
	if pause == 0 {
		s.start(n, r.who.Program, cause)
		return
	}
	s.after(pause, func() {
		if r.next == n {
			s.start(n, r.who.Program, cause)
		}
	})
}

// start starts a successor. A disk that hangs does not hold up the loop.
func (s *server) start(n *successor, program string, cause Cause) {
	who := n.relay.who
	go func() {
		p, err := spawn(program, who.Args, who.Env)
		if !s.post(func() { s.started(n, p, err, cause) }) && err == nil {
			p.close()
		}
	}()
}

// process is a process that the guard has started.
type process struct{ pid, pidfd, link int }

func (p process) close() {
	unix.Close(p.pidfd)
	unix.Close(p.link)
}

// linkFD is the descriptor as which a successor has its link.
const linkFD = 3

func spawn(program string, args, env []string) (p process, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return p, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(fds[1])
	widen(fds[0])
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		defer null.Close()
		p.pid, _, err = syscall.StartProcess(program, args, &syscall.ProcAttr{
			Dir: "/", Env: env,
			Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(fds[1])},
			Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &p.pidfd},
		})
	}
	if err != nil {
		unix.Close(fds[0])
		return p, fmt.Errorf("start %s: %w", program, err)
	}
	p.link = fds[0]
	if p.pidfd < 0 {
		unix.Close(p.link)
		return p, errors.New("the kernel has no pidfds")
	}
	return p, nil
}

// started goes on when a successor was started, or could not be.
func (s *server) started(n *successor, p process, err error, cause Cause) {
	r := n.relay
	if err != nil {
		s.logf(r.who, "sandbox %s: %v", r.who.Sandbox, err)
		if r.next == n {
			s.failed(n, cause, err)
		}
		return
	}
	n.pid, n.pidfd = p.pid, p.pidfd
	if r.next != n {
		unix.Close(p.link) // by which it knows that it is not needed
		s.leave(p.pid, p.pidfd, 0)
		return
	}
	if n.link = s.newLink(p.link); n.link == nil {
		s.discard(n)
		s.failed(n, cause, errors.New("no link"))
		return
	}
	n.link.next = n
	if err := s.watch(n.pidfd, unix.EPOLLIN, func(uint32) { s.successorDied(n, cause) }); err != nil {
		s.opts.Logf("guard: %v", err)
	}
	_ = s.send(n.link, message{Type: typePrepare, Who: &r.who})
	if r.pidfd < 0 {
		s.tell(n, cause) // the relay may have died while its standby was started
		return
	}
	s.expire(n)
}

// expire ends a successor that takes too long.
func (s *server) expire(n *successor) {
	if n.late != nil {
		n.late.Stop()
	}
	n.late = s.after(s.opts.comesUp, func() {
		if n.relay.next == n && n.pidfd >= 0 {
			s.logf(n.relay.who, "sandbox %s: its next relay, process %d, does not come up", n.relay.who.Sandbox, n.pid)
			_ = unix.PidfdSendSignal(n.pidfd, unix.SIGKILL, nil, 0)
		}
	})
}

// tell gives a successor all that it needs, and has it go on.
func (s *server) tell(n *successor, cause Cause) {
	r := n.relay
	n.told = true
	var err error
	for _, e := range r.entries {
		if err == nil {
			err = s.send(n.link, message{Type: typeStore, Name: e.name, Kind: e.kind, Data: e.data}, e.files...)
		}
		e.watch = watch{}
	}
	if err == nil {
		err = s.send(n.link, message{Type: typeResume, Cause: cause, PID: r.pid, At: time.Now(), Attempt: max(r.attempt, 1)})
	}
	if err != nil {
		s.logf(r.who, "sandbox %s: hand over to process %d: %v", r.who.Sandbox, n.pid, err)
		_ = unix.PidfdSendSignal(n.pidfd, unix.SIGKILL, nil, 0)
	}
	s.expire(n)
}

// succeeded makes a successor the relay.
func (s *server) succeeded(k *link, who Registration) {
	n := k.next
	r := n.relay
	n.late.Stop()
	who.ID, who.Sandbox, who.Pod = r.who.ID, cmp.Or(who.Sandbox, r.who.Sandbox), cmp.Or(who.Pod, r.who.Pod)
	if who.TraceID == "" {
		who.TraceID, who.SpanID = r.who.TraceID, r.who.SpanID
	}
	k.next, k.relay = nil, r
	r.next, r.link = nil, k
	r.who, r.pid, r.pidfd = who, n.pid, n.pidfd
	r.resumed, r.began = r.resumed+1, time.Now()
	_ = s.watch(r.pidfd, unix.EPOLLIN, func(uint32) { s.died(r) })
	s.logf(r.who, "sandbox %s: process %d goes on", r.who.Sandbox, r.pid)
	s.answer(r, nil)
}

// successorDied is told that a successor has ended.
func (s *server) successorDied(n *successor, cause Cause) {
	r := n.relay
	s.drain(n.link)
	if r.next != n { // it has registered, in its last words, or is not needed
		if r.pidfd == n.pidfd {
			s.died(r)
		}
		return
	}
	status := reap(n.pid)
	s.loop.close(n.pidfd)
	n.pidfd = -1
	why := fmt.Sprintf("exit status %d", status.ExitStatus())
	if status.Signaled() {
		why = "signal " + status.Signal().String()
	}
	s.logf(r.who, "sandbox %s: its next relay, process %d, has ended at once: %s", r.who.Sandbox, n.pid, why)
	s.failed(n, cause, fmt.Errorf("the new process has ended: %s", why))
}

// failed goes on without a successor that failed.
func (s *server) failed(n *successor, cause Cause, err error) {
	r := n.relay
	r.next = nil
	if n.late != nil {
		n.late.Stop()
	}
	s.failUpgrade(r, err)
	if r.pidfd < 0 {
		s.follow(r, cause)
	}
}

// discard ends a successor that is not needed. Without its link it ends by itself.
func (s *server) discard(n *successor) {
	if n.relay.next == n {
		n.relay.next = nil
	}
	if n.late != nil {
		n.late.Stop()
	}
	if n.link != nil {
		s.drop(n.link)
	}
	if n.pidfd >= 0 {
		s.leave(n.pid, n.pidfd, 10*s.opts.second)
		n.pidfd = -1
	}
}

// successorSaid takes a message from a successor that has not registered.
func (s *server) successorSaid(k *link, m message) {
	n := k.next
	switch m.Type {
	case typeReady:
		s.standbyReady(n)
	case typeRefused:
		s.failUpgrade(n.relay, errors.New(m.Error))
	}
}
