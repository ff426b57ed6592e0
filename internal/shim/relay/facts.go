package relay

import (
	"os"

	"github.com/shimtrace/shimtrace/internal/shim/control"
)

// facts returns what the relay knows of its work.
func (p *Process) facts() *control.Facts {
	recorded := p.tel.Journal.Written()
	f := &control.Facts{PID: os.Getpid(), Resumed: p.resumed, Recorded: &recorded}
	if p.memory != nil {
		waiting := p.memory.waiting().Load()
		f.Waiting = &waiting
	}
	if p.kata != nil {
		p.kata.Facts(f)
	}
	return f
}
