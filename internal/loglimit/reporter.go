package loglimit

import "sync"

// Reporter passes on errors, but not the same one twice in a row, as a retry causes.
type Reporter struct {
	To func(error) // nil: nobody is told

	mu   sync.Mutex
	last string
}

// Tell reports err. nil means that all is well again.
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
