// Package expected knows which failed calls belong to a healthy life: containerd, its
// clients and Kata's runtimes ask for containers that are not there yet and for processes
// that have ended, and take the failure for an answer.
//
// What belongs there is in one table (rules.go), by method, code and moment, each rule
// with its source. The moment is known from the calls that pass: Lives follows them.
// Whatever is not in the table is a failure.
package expected

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/middleware"
)

// Bounds of what is remembered. For containers and processes beyond these, no failure is
// expected.
const (
	maxContainers = 1024
	maxExecs      = 1024 // of one container
)

// Lives follows the containers and processes that calls are about. Its methods are safe
// for concurrent use.
type Lives struct {
	verbs verbs
	rules []rule

	mu         sync.Mutex
	containers map[string]*container
}

// container is a container's life, and those of its execs.
type container struct {
	life
	Execs map[string]*life `json:"execs,omitempty"`
}

// life is what is known of a container's first process, or of an exec.
type life struct {
	Waited   bool      `json:"waited,omitempty"`
	Exited   bool      `json:"exited,omitempty"`
	Deleted  bool      `json:"deleted,omitempty"`
	Deleting time.Time `json:"deleting,omitzero"` // when the deletion that is under way began
	Kept     time.Time `json:"kept,omitzero"`     // when the last deletion that failed began
}

// OfTasks follows the calls of containerd's task service.
func OfTasks() *Lives { return newLives(taskVerbs, taskRules) }

// OfAgent follows the requests to a Kata agent.
func OfAgent() *Lives { return newLives(agentVerbs, agentRules) }

func newLives(v verbs, r []rule) *Lives {
	return &Lives{verbs: v, rules: r, containers: make(map[string]*container)}
}

// MarshalJSON implements json.Marshaler: what is known of the lives, for another process
// that follows the same calls.
func (l *Lives) MarshalJSON() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return json.Marshal(l.containers)
}

// UnmarshalJSON implements json.Unmarshaler: it goes on with what another process knew.
func (l *Lives) UnmarshalJSON(text []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := make(map[string]*container)
	if err := json.Unmarshal(text, &known); err != nil {
		return err
	}
	for id, ct := range known {
		if ct == nil {
			delete(known, id)
		} else if ct.Execs == nil {
			ct.Execs = make(map[string]*life)
		}
	}
	l.containers = known
	return nil
}

// Follows reports whether a call that passes changes a life, so that a copy of the lives
// kept elsewhere is out of date.
func (l *Lives) Follows(c *middleware.Call) bool {
	return slices.Contains([]string{l.verbs.create, l.verbs.exec, l.verbs.wait, l.verbs.remove}, c.Method)
}

// Forwarded takes note of a call whose request was forwarded. It may come after Answered.
func (l *Lives) Forwarded(c *middleware.Call) {
	if c.Method != l.verbs.wait && c.Method != l.verbs.remove {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.process(c)
	switch {
	case p == nil:
	case c.Method == l.verbs.wait:
		p.Waited = true
	case !p.Kept.Equal(c.Start):
		p.Deleting = c.Start
	}
}

// Answered takes note of a call's answer.
func (l *Lives) Answered(c *middleware.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ok := c.Code == 0
	switch c.Method {
	case l.verbs.create:
		if ok {
			l.create(c.ContainerID)
		}
	case l.verbs.exec:
		if ct := l.containers[c.ContainerID]; ok && ct != nil && len(ct.Execs) < maxExecs {
			ct.Execs[c.ExecID] = new(life)
		}
	case l.verbs.wait:
		if p := l.process(c); ok && p != nil {
			p.Exited = true
		}
	case l.verbs.remove:
		l.removed(c, ok)
	}
}

// create begins a container's life, even if there was a container with the same id before.
func (l *Lives) create(id string) {
	if len(l.containers) >= maxContainers && l.containers[id] == nil {
		for id, ct := range l.containers {
			if ct.Deleted {
				delete(l.containers, id)
			}
		}
		if len(l.containers) >= maxContainers {
			return
		}
	}
	l.containers[id] = &container{Execs: make(map[string]*life)}
}

func (l *Lives) removed(c *middleware.Call, ok bool) {
	p := l.process(c)
	switch {
	case p == nil:
	case !ok:
		p.Kept, p.Deleting = c.Start, time.Time{}
	default:
		p.Exited, p.Deleted = true, true
		if ct := l.containers[c.ContainerID]; c.ExecID != "" && len(ct.Execs) >= maxExecs {
			for id, exec := range ct.Execs {
				if exec.Deleted {
					delete(ct.Execs, id)
				}
			}
		}
	}
}

// Expected reports whether the failure of a call, which has been answered or whose
// connection has ended, belongs to a healthy life.
func (l *Lives) Expected(c *middleware.Call) bool {
	if c.Code == 0 && !c.Closed || c.ContainerID == "" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.moment(c)
	return slices.ContainsFunc(l.rules, func(r rule) bool { return r.excuses(c, at) })
}

// moment returns where in its life a call's container or process is.
func (l *Lives) moment(c *middleware.Call) (at moment) {
	ct := l.containers[c.ContainerID]
	if ct == nil {
		if len(l.containers) >= maxContainers {
			return 0 // it may be one that is not remembered
		}
		return absent
	}
	at = ct.moment()
	if c.ExecID == "" || at&gone != 0 {
		return at
	}
	if p := ct.Execs[c.ExecID]; p != nil {
		return p.moment()
	}
	return 0
}

func (p *life) moment() (at moment) {
	if p.Waited {
		at |= awaited
	}
	if p.Exited {
		at |= ended
	}
	if !p.Deleting.IsZero() {
		at |= deleting
	}
	if p.Deleted {
		at |= deleted
	}
	return at
}

// process returns the life that a call is about, nil if it is not known.
func (l *Lives) process(c *middleware.Call) *life {
	ct := l.containers[c.ContainerID]
	switch {
	case ct == nil:
		return nil
	case c.ExecID == "":
		return &ct.life
	}
	return ct.Execs[c.ExecID]
}
