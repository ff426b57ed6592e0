package kata

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/expected"
	"github.com/shimtrace/shimtrace/middleware"
)

// Kinds of entries that a process needs to go on for this one. The name of an entry is its
// kind, a slash and a number.
const (
	EntryRequest = "request" // a connection from the runtime to the agent
	entrySeat    = "vmm"     // a place of a VMM's socket
	entryAgent   = "agent"   // a connection from the agent
	entryHybrid  = "hybrid"  // a socket where agents connect
)

// Guard keeps what a process needs to go on for this one.
type Guard interface {
	Store(e guard.Entry)
	Remove(name string)
	// Name returns a name for a new entry of a kind.
	Name(kind string) string
	// Claim says that the VM with the CID is the sandbox's.
	Claim(cid uint32)
	// Handover has the connections of a relay kept as entries of a kind.
	Handover(kind string) middleware.Option
}

// Left is what another process has left.
type Left struct {
	Saved json.RawMessage // by its Observer
	// Entries are those of the kinds above but for EntryRequest, and Requests have a
	// relay go on with connections of that kind, each until it has ended.
	Entries  []guard.Received
	Requests []func(*middleware.Relay)
}

// saved is what an Observer knows that another one cannot find out.
type saved struct {
	CID   uint32          `json:"cid,omitempty"`
	Lives *expected.Lives `json:"lives,omitempty"` // as the requests to the agent tell
}

// Save returns what another process is to know.
func (o *Observer) Save() (json.RawMessage, error) {
	s := saved{CID: o.cid.Load()}
	if o.injector != nil {
		s.Lives = o.injector.requests.lives
	}
	return json.Marshal(s)
}

// restore takes over what another process knew.
func (o *Observer) restore() {
	if len(o.Left.Saved) == 0 {
		return
	}
	was := saved{Lives: expected.OfAgent()}
	if err := json.Unmarshal(o.Left.Saved, &was); err != nil {
		o.warnOfSpans(fmt.Errorf("what the relay before has saved: %w", err))
		return
	}
	o.lives = was.Lives
	if was.CID != 0 {
		o.cid.Store(was.CID)
		o.Guard.Claim(was.CID)
	}
}

// Receives reports whether the agent's spans are received from a sandbox of an inner shim.
func Receives(setting, inner string) bool { return forKata(setting, inner) }

// TakeVSOCK takes a connection that the guard has accepted from a VM, which may be one that
// no relay has claimed.
func (o *Observer) TakeVSOCK(f *os.File, cid uint32) {
	conn, err := listen.VSOCKConn(f)
	if err != nil {
		o.warnOfSpans(fmt.Errorf("connection of the VM with CID %d: %w", cid, err))
		return
	}
	from := listen.Origin{CID: cid}
	if cid == o.cid.Load() {
		from.Sandbox = o.Who.Sandbox
	}
	o.take(conn, from)
}

// take has the agent's connection read, by this process or another one.
func (o *Observer) take(conn listen.Conn, from listen.Origin) {
	kept, err := o.kept(conn, from)
	if err != nil {
		o.warnOfSpans(fmt.Errorf("a connection of the agent ends with this relay: %w", err))
		kept = conn
	}
	o.forwarder.Take(kept, from)
}

// kept returns the connection as one that another process can go on with. On error the
// connection is as it was.
func (o *Observer) kept(conn listen.Conn, from listen.Origin) (listen.Conn, error) {
	m, err := handover.New()
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	name := o.Guard.Name(entryAgent)
	kept, err := o.keep(name, conn, m)
	if err != nil {
		m.Close()
		return nil, err
	}
	o.Guard.Store(guard.Entry{Name: name, Kind: guard.Stream, Data: data, Files: []syscall.Conn{kept, m.File()}})
	return kept, nil
}

// keep returns the connection with its memory, and remembers it by the name of its entry.
func (o *Observer) keep(name string, conn listen.Conn, m *handover.Memory) (*handover.Incoming, error) {
	c, ok := conn.(handover.Conn)
	if !ok {
		return nil, fmt.Errorf("%T has no descriptor", conn)
	}
	kept, err := handover.Receive(c, m, func() {
		o.keeping.Lock()
		delete(o.incoming, name)
		o.keeping.Unlock()
		o.Guard.Remove(name)
	})
	if err != nil {
		return nil, err
	}
	o.keeping.Lock()
	o.incoming[name] = kept
	o.keeping.Unlock()
	return kept, nil
}

// resumeAgents goes on with the agent's connections.
func (o *Observer) resumeAgents() {
	for _, e := range o.left(entryAgent) {
		if err := o.resumeAgent(e); err != nil {
			o.warnOfSpans(fmt.Errorf("a connection of the agent ends with the relay that was there before: %w", err))
			o.Guard.Remove(e.Name)
		}
	}
}

func (o *Observer) resumeAgent(e guard.Received) (err error) {
	if len(e.Files) != 2 {
		return fmt.Errorf("%d descriptors", len(e.Files))
	}
	var from listen.Origin
	if err := json.Unmarshal(e.Data, &from); err != nil {
		return err
	}
	var conn listen.Conn
	if from.CID != 0 {
		conn, err = listen.VSOCKConn(e.Files[0])
	} else {
		conn, err = host.UnixConn(e.Files[0])
	}
	if err != nil {
		return err
	}
	m, err := handover.Open(e.Files[1])
	if err != nil {
		conn.Close()
		return err
	}
	kept, err := o.keep(e.Name, conn, m)
	if err != nil {
		conn.Close()
		m.Close()
		return err
	}
	o.Guard.Store(e.Entry(kept, m.File()))
	o.forwarder.Take(kept, from)
	return nil
}

// left returns the entries of a kind that another process has left.
func (o *Observer) left(kind string) (all []guard.Received) {
	for _, e := range o.Left.Entries {
		if strings.HasPrefix(e.Name, kind+"/") {
			all = append(all, e)
		}
	}
	return all
}
