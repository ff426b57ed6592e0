package collect

import (
	"fmt"
	"strconv"
	"testing"
)

// TestTargetChanges changes a target forty times while spans are recorded, with bad edits
// between: the one of [export], and one with a name beside it. What is recorded once a
// change is in effect goes to the new address, no span is missing, and none comes twice; a
// target that does not change gets all of them once.
func TestTargetChanges(t *testing.T) {
	steady := newTaken(t)
	for name, text := range map[string]string{
		"alone":          "[export]\nendpoint = %s\n",
		"beside another": fmt.Sprintf("[export]\nendpoint = %q\n[export.target.other]\nendpoint = %%s\n", steady.url),
	} {
		t.Run(name, func(t *testing.T) {
			h := startHost(t, fmt.Sprintf(text, `"http://127.0.0.1:1"`))
			h.change(text)
			if name != "alone" {
				h.complete("the other target", steady)
			}
		})
	}
}

// change is the test, of a configuration with an endpoint to fill in.
func (h *collecting) change(text string) {
	targets := [2]*taken{newTaken(h.T), newTaken(h.T)}
	h.edit(fmt.Sprintf(text, strconv.Quote(targets[0].url)))
	stop := h.load(func() int { return targets[0].count() + targets[1].count() })
	for n := 1; n <= 40; n++ {
		now, before := targets[n%2], targets[(n-1)%2]
		if n%10 == 0 {
			h.edit(fmt.Sprintf(text, "7"))
			was := before.count()
			eventually(h.T, "the bad edit to be seen", func() bool { return h.mistakes.Load() == int64(n/10) })
			eventually(h.T, "the old target to get spans", func() bool { return before.count() > was })
		}
		h.edit(fmt.Sprintf(text, strconv.Quote(now.url)))
		had := now.count()
		eventually(h.T, "the new target to get spans", func() bool { return now.count() > had })
		next := h.record()
		eventually(h.T, "a span recorded afterwards", func() bool { return now.has(next) || before.has(next) })
		if before.has(next) {
			h.Fatalf("change %d: a span recorded afterwards went to the old target", n)
		}
	}
	stop()
	h.complete("both addresses", targets[:]...)
}
