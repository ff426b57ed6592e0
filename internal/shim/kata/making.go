package kata

import (
	"sync"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/middleware"
)

// makesVM reports whether a call is one in which an inner shim makes its VM: the first
// Create, or with sandboxer = "shim" those of the Sandbox service.
func makesVM(c *middleware.Call) bool { return kata.TaskMethod(c.Method) == "Create" }

// making has the VM's sockets looked for often while a call may be making the VM, and
// seldom otherwise.
type making struct {
	pace *vmmdir.Pace

	mu       sync.Mutex
	underWay int
}

func (m *making) began(c *middleware.Call) {
	if !makesVM(c) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.underWay++; m.underWay == 1 {
		m.pace.Expect(0)
	}
}

// over is for calls that are answered, and for those that are lost, whose VM may yet be
// made.
func (m *making) over(c *middleware.Call, lost bool) {
	if !makesVM(c) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.underWay = max(0, m.underWay-1)
	switch {
	case m.underWay > 0:
	case lost:
		m.pace.Expect(vmTime)
	default:
		m.pace.Settle()
	}
}
