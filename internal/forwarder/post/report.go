package post

import (
	"sync"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// Reports passes on the first case of each loss reason. It is safe for concurrent use.
type Reports struct {
	To   func(losses.Reason, error) // nil: nobody is told
	seen sync.Map                   // reasons
}

// Tell reports a loss.
func (r *Reports) Tell(reason losses.Reason, err error) {
	if r.To == nil {
		return
	}
	if _, again := r.seen.LoadOrStore(reason, true); !again {
		r.To(reason, err)
	}
}
