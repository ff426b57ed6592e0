package seeded

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain"
)

// Cause is a cause that a test made.
type Cause struct {
	// ID is the rule that has to name it.
	ID string
	// How says what the test did.
	How string
	// Parts says what it did it with: real programs, a recorded pod, or spans like theirs.
	Parts Parts
	// Also are rules that may name something besides, since the test causes that as well.
	Also []string
}

// Parts says what a cause was seeded in.
type Parts string

const (
	Runc     Parts = "containerd, runc"
	VM       Parts = "containerd, a VM-shaped shim, a guest"
	Captured Parts = "a recorded Kata pod"
	Spans    Parts = "spans like the real ones"
)

// Quiet skips a test of causes that a busy machine hides: where a process has ended, or a
// file is late, before anybody could look, there is no evidence to name them by.
func Quiet(t testing.TB) {
	t.Helper()
	if os.Getenv("SHIMTRACE_CAUSES") == "" {
		t.Skip("needs a machine that is not busy: make test-causes")
	}
}

// Limit is the share of a start that may have no named owner.
const Limit = 0.05

// Named fails the test unless e names the cause, and no other than those that the test made.
// If the machine is so short of CPU time that e gives this as the reason instead, the test has
// proven nothing, and logs that.
func Named(t testing.TB, c Cause, e *explain.Explanation) {
	t.Helper()
	named, wrong := "no", []string{}
	for _, found := range e.Causes {
		switch {
		case found.ID == c.ID:
			named = "yes"
			if found.Inferred {
				named = "yes, as probable"
			}
			if found.Sentence == "" || len(found.Evidence) == 0 || found.Remedy == "" {
				t.Errorf("%s is named without a sentence, evidence or a remedy: %+v", c.ID, found)
			}
		case slices.Contains(found.Covers, c.ID):
			t.Logf("%s (%s): this machine is too busy to tell: %s", c.ID, c.How, strings.Join(found.Evidence, "; "))
			return
		case !slices.Contains(c.Also, found.ID):
			wrong = append(wrong, found.ID)
		}
	}
	if named == "no" || len(wrong) > 0 {
		t.Errorf("%s (%s): named: %s; wrongly named: %v\n%s", c.ID, c.How, named, wrong, e)
		if os.Getenv(write) == "" {
			return // the document may say better
		}
	}
	record(t, "Seeded causes", fmt.Sprintf("| `%s` | %s | %s |", c.ID, cell(c.How), c.Parts), fmt.Sprintf(" %s | %d |", named, len(wrong)), false)
}

// Pressed is the rule that a test's machine may meet by itself.
const Pressed = "host-pressure"

// Pod is a start without a fault. Waited is for how long processes of the machine waited for a
// resource while the test watched, at most.
type Pod struct {
	*explain.Explanation
	Waited time.Duration
}

// Healthy fails the test if a cause is named on a pod without a fault. That the machine is
// short of a resource does not count, if the test has seen the shortage as well.
func Healthy(t testing.TB, how string, parts Parts, all []Pod) {
	t.Helper()
	named := 0
	for _, p := range all {
		for _, found := range p.Causes {
			if found.ID == Pressed && found.Cost <= p.Waited {
				t.Logf("this machine is busy: %s", found.Sentence)
				continue
			}
			named++
			t.Errorf("%s is named on a healthy pod; processes waited for at most %s\n%s", found.ID, p.Waited, p)
		}
	}
	if named == 0 {
		record(t, "Seeded causes", fmt.Sprintf("| none | %s | %s |", cell(how), parts), " nothing | 0 |", true)
	}
}

// Covered prints how much of a start has a named owner, and fails the test if it is too
// little.
func Covered(t testing.TB, combination string, e *explain.Explanation) {
	t.Helper()
	if e.Start == nil {
		t.Errorf("%s: the spans tell of no start", combination)
		return
	}
	c := &e.Coverage
	part := func(d float64) string { return fmt.Sprintf("%.1f %%", 100*d/float64(c.Total)) }
	cells := fmt.Sprintf(" %s | %s | %s | %s |", round(c.Total.Seconds()), part(float64(c.BySpan)), part(float64(c.Inferred)), part(float64(c.Unnamed)))
	t.Logf("coverage of the start, %s:%s", combination, strings.TrimSuffix(cells, "|"))
	if c.Share() > Limit {
		t.Errorf("%s: %.1f %% of the start has no named owner\n%s", combination, 100*c.Share(), e)
		return
	}
	record(t, "Coverage", "| "+cell(combination)+" |", cells, false)
}

func round(seconds float64) string { return fmt.Sprintf("%.2g s", seconds) }

// cell returns s as the text of one cell.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}
