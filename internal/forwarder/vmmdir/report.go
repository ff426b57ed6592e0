package vmmdir

import "sync"

// Reporter passes on what goes wrong without ending anything. The same again and
// again, as from a retry, is told once.
type Reporter struct {
	To func(error) // nil tells nobody

	mu   sync.Mutex
	last string
}

// Tell reports err; nil means that all is well again.
func (r *Reporter) Tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.mu.Lock()
	news := text != r.last
	r.last = text
	r.mu.Unlock()
	if news && err != nil && r.To != nil {
		r.To(err)
	}
}
