package seeded

import (
	"os"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/explain/causes"
)

// row is one of the table of seeded causes.
type row struct {
	cause, how  string
	parts       Parts
	named       bool
	wrong       string // how many were named besides
	healthyPods bool
}

// rows returns the table of seeded causes.
func rows(doc string) (all []row) {
	_, rest, _ := strings.Cut(doc, "\n## Seeded causes\n")
	body, _, _ := strings.Cut(rest, "\n## ")
	for line := range strings.Lines(body) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 6 || strings.HasPrefix(line, "| cause |") {
			continue
		}
		r := row{cause: strings.Trim(cells[0], "| `"), how: cells[1], parts: Parts(cells[2]), wrong: cells[4]}
		r.named, r.healthyPods = strings.HasPrefix(cells[3], "yes"), r.cause == "none"
		all = append(all, r)
	}
	return all
}

// Of so many causes that tests make in real programs, or that a recorded pod has, so many
// have to be named.
const leastReal, leastNamed = 20, 18

// TestSeededCauses: docs/explain.md says of every rule that a test seeds it, of enough of
// them that it does in real programs and that they are named then, and of no other that it
// is named besides, least of all on a healthy pod.
func TestSeededCauses(t *testing.T) {
	path, err := document()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seeded, inReal, missed := make(map[string]bool), make(map[string]bool), make(map[string]bool)
	healthy := make(map[Parts]bool)
	for _, r := range rows(string(data)) {
		if r.wrong != "0" {
			t.Errorf("%s (%s): %s are named besides", r.cause, r.how, r.wrong)
		}
		if r.healthyPods {
			healthy[r.parts] = true
			continue
		}
		seeded[r.cause] = true
		if r.parts != Spans {
			inReal[r.cause] = true
			missed[r.cause] = missed[r.cause] || !r.named
		} else if !r.named {
			t.Errorf("%s (%s) is not named", r.cause, r.how)
		}
	}
	named := 0
	for _, r := range causes.Catalogue {
		if !seeded[r.ID] {
			t.Errorf("no test seeds %s", r.ID)
		}
		if inReal[r.ID] && !missed[r.ID] {
			named++
		}
	}
	if len(inReal) < leastReal || named < len(inReal)-(leastReal-leastNamed) {
		t.Errorf("%d causes are seeded in real programs, of which %d are named: want %d, and all but %d", len(inReal), named, leastReal, leastReal-leastNamed)
	}
	if !healthy[Runc] || !healthy[VM] {
		t.Errorf("no test starts healthy pods of each kind: %v", healthy)
	}
}
