package relay

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/shim/kata"
	"github.com/shimtrace/shimtrace/middleware"
)

// Names of what the guard keeps for a relay. Connections have a number behind a slash.
const (
	entryListener = "listener"
	entryControl  = "control"
	entrySentinel = "sentinel"
	entryMemory   = "state"
	entryConn     = "conn"
)

// guarded is what the guard is to have of the relay. Where there is no guard, it is only
// remembered.
type guarded struct {
	guard.Client
	lost func(calls int) // whose spans are lost; nil: nobody counts

	mu    sync.Mutex
	names map[any]string        // of connections that are not live, by their memory, or the client if they have none
	live  map[string]connection // that are relayed, and can be handed over
	last  int                   // number of a connection
}

// connection is a connection that can be handed over. One without a memory has no server,
// and nothing has been read from it.
type connection struct {
	name           string
	client, server net.Conn
	memory         *handover.Memory
}

// Name implements kata.Guard.
func (g *guarded) Name(kind string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.name(kind)
}

func (g *guarded) name(kind string) string {
	g.last++
	return kind + "/" + strconv.Itoa(g.last)
}

var _ kata.Guard = (*guarded)(nil)

// Handover has connections of a kind kept, as far as they have memory.
func (g *guarded) Handover(kind string) middleware.Option {
	return middleware.WithHandover(middleware.Handover{
		Begun: func(client, server net.Conn, m *handover.Memory) (ended func()) {
			return g.begun(kind, connection{client: client, server: server, memory: m})
		},
		WithIDs: export.ContextWithSampled,
		Lost: func(calls int) {
			if g.lost != nil {
				g.lost(calls)
			}
		},
	})
}

// accepted has a new connection kept before anything else is done with it: it ends with
// this process only between two system calls.
func (g *guarded) accepted(client net.Conn) {
	g.mu.Lock()
	c := connection{name: g.name(entryConn), client: client}
	g.know(c)
	g.mu.Unlock()
	g.Store(guard.Entry{Name: c.name, Files: []syscall.Conn{client.(syscall.Conn)}})
}

// ended lets go of a connection that was accepted, if it has never begun.
func (g *guarded) ended(client net.Conn) {
	g.mu.Lock()
	name, ok := g.names[client]
	delete(g.names, client)
	g.mu.Unlock()
	if ok {
		g.Remove(name)
	}
}

func (g *guarded) begun(kind string, c connection) (ended func()) {
	g.mu.Lock()
	var known bool
	if c.name, known = g.names[c.memory]; !known {
		c.name = g.names[c.client]
	}
	if c.name == "" {
		c.name = g.name(kind)
	}
	delete(g.names, c.memory)
	delete(g.names, c.client)
	if g.live == nil {
		g.live = make(map[string]connection)
	}
	g.live[c.name] = c
	g.mu.Unlock()
	if !known {
		g.Store(guard.Entry{Name: c.name, Kind: guard.Relayed, Files: []syscall.Conn{c.client.(syscall.Conn), c.server.(syscall.Conn), c.memory.File()}})
	}
	return func() {
		g.mu.Lock()
		delete(g.live, c.name)
		g.mu.Unlock()
		g.Remove(c.name)
	}
}

// handedOver returns the connections of a kind that were being relayed, to be resumed by
// this process.
func (g *guarded) handedOver(kind string) (all []connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, c := range g.live {
		if k, _, _ := strings.Cut(name, "/"); k == kind {
			g.know(c)
			all = append(all, c)
		}
	}
	return all
}

// know has a connection keep its name when it is resumed.
func (g *guarded) know(c connection) {
	if g.names == nil {
		g.names = make(map[any]string)
	}
	if c.memory == nil {
		g.names[c.client] = c.name
	} else {
		g.names[c.memory] = c.name
	}
}

// resumed takes over an entry that another process has stored.
func (g *guarded) resumed(e guard.Entry) {
	g.Store(e)
	g.mu.Lock()
	defer g.mu.Unlock()
	_, number, _ := strings.Cut(e.Name, "/")
	if n, err := strconv.Atoi(number); err == nil {
		g.last = max(g.last, n)
	}
}

// resumedConnection takes over a connection that another process relayed.
func (g *guarded) resumedConnection(e guard.Received, c connection) {
	files := []syscall.Conn{c.client.(syscall.Conn)}
	if c.memory != nil {
		files = append(files, c.server.(syscall.Conn), c.memory.File())
	}
	g.resumed(e.Entry(files...))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.know(c)
}

// essentials are what a process must know to go on with nothing but the bytes: they are
// beside the sentinel, which is there to the end.
type essentials struct {
	InnerSock string    `json:"inner_socket"`
	InnerPID  int       `json:"inner_pid"`
	RelaySock string    `json:"relay_socket"`
	Socket    vmmdir.ID `json:"socket"` // the file of the relay's own
}

func (e essentials) data() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprint("essentials: ", err)) // of strings and a number
	}
	return b
}

// ownFormats are those of what a relay leaves for its successor, by their versions.
func ownFormats() map[string]int {
	return map[string]int{"state": savedVersion, "memory": handover.Version}
}

// Takes reports why a relay of this program could not go on with these formats, nil if it
// could.
func Takes(formats map[string]int) error {
	for name, version := range ownFormats() {
		if got := formats[name]; got != version {
			return fmt.Errorf("the relay's %s has version %d, this program knows version %d", name, got, version)
		}
	}
	return nil
}
