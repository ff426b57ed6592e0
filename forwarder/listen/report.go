package listen

import "sync"

// reporter passes on what goes wrong without ending anything. The same again and
// again, as from a retry, is told once.
type reporter struct {
	to func(error)

	mu   sync.Mutex
	last string
}

// tell reports err; nil means that all is well again.
func (r *reporter) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.mu.Lock()
	news := text != r.last
	r.last = text
	r.mu.Unlock()
	if news && err != nil && r.to != nil {
		r.to(err)
	}
}
