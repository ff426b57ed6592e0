package seeded

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/explain/causes"
)

// TestCatalogue: docs/explain.md has the catalogue.
func TestCatalogue(t *testing.T) {
	var table strings.Builder
	table.WriteString("| rule | looks for | why it takes time | source | what to do |\n|---|---|---|---|---|\n")
	id, seen := regexp.MustCompile(`^[a-z-]+$`), make(map[string]bool)
	for _, r := range causes.Catalogue {
		if !id.MatchString(r.ID) || seen[r.ID] || r.Looks == "" || r.Why == "" || r.Source == "" || r.Remedy == "" {
			t.Errorf("%+v", r)
		}
		seen[r.ID] = true
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s |\n", r.ID, cell(r.Looks), cell(r.Why), cell(r.Source), cell(r.Remedy))
	}
	path, err := document()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(write) != "" {
		err := edit(path, func(doc string) (string, error) {
			head, _, _ := strings.Cut(doc, "\n## Catalogue\n")
			return head + "\n## Catalogue\nThe rules are in [internal/explain/causes](../internal/explain/causes/catalogue.go), with the code beside.\n\n" + table.String(), nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), table.String()) {
		t.Errorf("the catalogue in docs/explain.md is not that of the code; %s=1 writes it", write)
	}
}

func TestSet(t *testing.T) {
	doc := "# Head\n\n## A\nwords\n\n| h | t |\n|---|---|\n| b | `TestB` |\n\n## B\nmore\n"
	got, err := set(doc, "A", "| a |", "| a | `TestA` |")
	if err != nil {
		t.Fatal(err)
	}
	if want := "# Head\n\n## A\nwords\n\n| h | t |\n|---|---|\n| a | `TestA` |\n| b | `TestB` |\n\n## B\nmore\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	again, err := set(got, "A", "| a |", "| a | `TestC` |")
	if err != nil || strings.Count(again, "| a |") != 1 || !strings.Contains(again, "TestC") {
		t.Errorf("%v\n%s", err, again)
	}
	if _, err := set(doc, "C", "| a |", "| a | x |"); err == nil {
		t.Error("a section that is not there")
	}
}
