package guard

import (
	"errors"

	"github.com/shimtrace/shimtrace/internal/procevents"
)

// followed is the process whose descendants a relay wants to know of.
type followed struct {
	pid   int
	start uint64 // host.Process.Start
	vm    bool   // procevents.Root.VM
}

// message returns the message that asks the guard to follow the process.
func (f followed) message() message {
	return message{Type: typeFollow, PID: f.pid, Start: f.start, VM: f.vm}
}

// follows has a relay told of the processes below the followed one.
func (s *server) follows(r *relay, f followed) error {
	if f.pid <= 0 {
		return errors.New("processes below none cannot be followed")
	}
	s.unfollow(r)
	root := &procevents.Root{VM: f.vm}
	tell := func(m message) {
		s.post(func() {
			if r.root == root && r.link != nil {
				_ = s.send(r.link, m)
			}
		})
	}
	root.Report = func(p procevents.Report) { tell(message{Type: typeProcess, Process: &p}) }
	r.root = root
	s.processes.Follow(f.pid, f.start, root, func(err error) { tell(message{Type: typeProcess, Error: err.Error()}) })
	return nil
}

func (s *server) unfollow(r *relay) {
	if r.root != nil {
		s.processes.Leave(r.root)
		r.root = nil
	}
}

// Follow asks to be told of the processes below a process (ClientOptions.Process), in the
// place of those below another one. start is its host.Process.Start, vm its
// procevents.Root.VM.
func (c *Client) Follow(pid int, start uint64, vm bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follows = &followed{pid, start, vm}
	c.say(func(fd int) error { return sendPacket(fd, c.follows.message()) })
}
