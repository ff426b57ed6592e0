package guard

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/procevents"
)

// relay is what the guard knows of a relay, and holds for it.
type relay struct {
	who     Registration
	pid     int
	pidfd   int   // -1 while nobody relays
	link    *link // nil while it has none
	entries []*entry
	claims  []uint32
	strays  bool // it takes connections that nobody has claimed
	// complete: a successor could go on with the entries.
	complete bool
	root     *procevents.Root // whose processes it is told of; nil: it does not want to be
	heard    uint64           // messages from it
	unseen   bool             // it waits to hear whether its files are watched
	notSeen  error            // why they are not
	began    time.Time        // when the process registered

	threads map[string]host.Thread // as they were when nothing moved

	cause   Cause // why the guard has killed it
	attempt int   // how often in a row successors have been started that did not stay
	next    *successor
	resumed int // successors that went on
	last    Cause
	asker   *link     // who waits for its upgrade
	asked   time.Time // when it was asked to stop for that
}

// entry is what a relay has stored.
type entry struct {
	name  string
	kind  Kind
	data  []byte
	files []int
	watch watch
}

// register takes in a relay, or the successor of one. If keep is true, the guard has taken
// over pidfd.
func (s *server) register(k *link, who Registration, pidfd int) (keep bool, err error) {
	if k.relay != nil {
		return false, fmt.Errorf("%w: registered twice", errProtocol)
	}
	if k.next != nil {
		s.succeeded(k, who)
		return false, nil
	}
	cred, err := unix.GetsockoptUcred(k.fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return false, err
	}
	if old := s.relays[who.ID]; old != nil {
		s.failUpgrade(old, errors.New("its relay has registered again"))
		s.forget(old)
	}
	if len(s.relays) >= maxRelays {
		return false, fmt.Errorf("there are %d relays already", maxRelays)
	}
	if slices.Equal(who.Env, s.env) { // a host's relays have the same, most likely
		who.Env = s.env
	}
	s.env = who.Env
	r := &relay{who: who, pid: int(cred.Pid), pidfd: pidfd, link: k, began: time.Now()}
	if err := s.watch(pidfd, unix.EPOLLIN, func(uint32) { s.died(r) }); err != nil {
		return false, err
	}
	k.relay = r
	s.relays[who.ID] = r
	return true, nil
}

// store takes an entry, and its descriptors in any case.
func (r *relay) store(m message, files []int) error {
	r.remove(m.Name)
	if len(r.entries) >= maxEntries {
		host.CloseAll(files)
		return fmt.Errorf("%w: more than %d entries", errProtocol, maxEntries)
	}
	r.entries = append(r.entries, &entry{name: m.Name, kind: m.Kind, data: m.Data, files: files})
	return nil
}

func (r *relay) remove(name string) {
	i := slices.IndexFunc(r.entries, func(e *entry) bool { return e.name == name })
	if i >= 0 {
		host.CloseAll(r.entries[i].files)
		r.entries = slices.Delete(r.entries, i, i+1)
	}
}

// forget lets go of all that is held for a relay.
func (s *server) forget(r *relay) {
	for _, e := range r.entries {
		host.CloseAll(e.files)
	}
	r.entries = nil
	if r.pidfd >= 0 {
		s.leave(r.pid, r.pidfd, 0)
		r.pidfd = -1
	}
	if n := r.next; n != nil {
		s.discard(n)
	}
	if r.link != nil {
		s.drop(r.link)
	}
	s.unclaim(r)
	s.unfollow(r)
	s.unwatchFiles(r)
	if s.relays[r.who.ID] == r {
		if delete(s.relays, r.who.ID); len(s.relays) == 0 {
			s.endWhenIdle(s.opts.idle)
		}
	}
}

// leave no longer looks after a process, but still waits for its end: it may be our child.
// A process that lives longer than most is killed; 0: it may live on.
func (s *server) leave(pid, pidfd int, most time.Duration) {
	var late *time.Timer
	ended := func(uint32) {
		if late != nil {
			late.Stop()
		}
		reap(pid)
		s.loop.close(pidfd)
	}
	if err := s.watch(pidfd, unix.EPOLLIN, ended); err != nil {
		s.loop.close(pidfd)
		return
	}
	if most > 0 {
		late = s.after(most, func() { _ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) })
	}
}

// reap takes the status of a process that has ended, if it was our child. All processes
// that the guard has started are, including those that it started before it became another
// program.
func reap(pid int) (status unix.WaitStatus) {
	if got, _ := unix.Wait4(pid, &status, unix.WNOHANG, nil); got != pid {
		return 0
	}
	return status
}

const (
	// stayTime is how long a successor must live not to have been started in vain, and
	// killedTime how long if somebody has killed it.
	stayTime   = time.Minute
	killedTime = 100 * time.Millisecond
)

// died is told that a relay's process has ended.
func (s *server) died(r *relay) {
	s.drain(r.link)
	if r.pidfd < 0 {
		return // it has said that it leaves, or had not said all that a successor needs
	}
	lived, status := time.Since(r.began), reap(r.pid)
	switch killed := status.Signaled() && status.Signal() == unix.SIGKILL && r.cause == ""; {
	case lived >= stayTime, killed && lived >= killedTime:
		r.attempt = 0
	case killed: // it is not at fault, but others are not started without end and pause
		r.attempt = min(r.attempt, 1)
	}
	s.loop.close(r.pidfd)
	r.pidfd = -1
	cause := r.cause
	if cause == "" {
		cause = Killed
	}
	r.cause, r.last = "", cause
	s.follow(r, cause)
}
