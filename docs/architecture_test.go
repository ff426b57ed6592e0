package docs_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const architecture = "docs/architecture.md"

// section returns a document's lines below a heading, up to the next one of its level.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, after, found := strings.Cut(text, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %q", architecture, heading)
	}
	body, _, _ := strings.Cut(after, "\n## ")
	return body
}

// rows returns the rows of a section's tables whose first cell is one name in
// backquotes, by that name.
func rows(t *testing.T, text string) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		name := strings.Trim(cells[0], "`")
		if !strings.HasPrefix(line, "|") || "`"+name+"`" != cells[0] {
			continue
		}
		if all[name] != nil {
			t.Errorf("%s has two rows of %s", architecture, name)
		}
		all[name] = cells[1:]
	}
	return all
}

// TestPackages: the table of packages has each of the tree, and no other.
func TestPackages(t *testing.T) {
	packages := tree(t)
	table := rows(t, section(t, read(t, architecture), "Packages"))
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		if table[dir] == nil {
			t.Errorf("%s says nothing of package %s: give it a row, with what it does", architecture, dir)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(table)) {
		if packages[dir] == nil {
			t.Errorf("%s has a row of %s, where no package is", architecture, dir)
		}
	}
}

// TestOnlyTests: what the table of packages says only tests call is in no program.
func TestOnlyTests(t *testing.T) {
	packages := tree(t)
	n := 0
	table := rows(t, section(t, read(t, architecture), "Packages"))
	forTests := func(dir string) bool {
		cells := table[dir]
		return room(dir) == "integration" || len(cells) > 0 && cells[len(cells)-1] == "tests"
	}
	for dir := range table {
		if room(dir) == "integration" || !forTests(dir) {
			continue
		}
		n++
		for user, p := range packages {
			if p.imports[dir] && !forTests(user) {
				t.Errorf("%s imports %s, which only tests are to import", user, dir)
			}
		}
	}
	if n < 3 {
		t.Errorf("only %d packages are said to be for tests", n)
	}
}

// TestImportRule: packages import those of their own room, and of the rooms that the
// table of imports gives to theirs.
func TestImportRule(t *testing.T) {
	table := rows(t, section(t, read(t, architecture), "Imports"))
	room := func(dir string) string { return roomOf(dir, table) }
	rooms := make(map[string]bool)
	for dir, p := range tree(t) {
		if room(dir) == "integration" || room(dir) == "docs" {
			continue
		}
		rooms[room(dir)] = true
		cells := table[room(dir)]
		if cells == nil {
			t.Errorf("%s does not say what %s may import", architecture, room(dir))
			continue
		}
		for imported := range p.imports {
			if to := room(imported); to != room(dir) && !strings.Contains(cells[0], "`"+to+"`") {
				t.Errorf("%s imports %s: %s does not let %s import %s", dir, imported, architecture, room(dir), to)
			}
		}
	}
	for name, cells := range table {
		if !rooms[name] {
			t.Errorf("%s has a rule for %s, where no package is", architecture, name)
		}
		for _, other := range strings.Split(cells[0], ", ") {
			if other = strings.Trim(other, "`"); other != "nothing" && !rooms[other] {
				t.Errorf("%s lets %s import %s, where no package is", architecture, name, other)
			}
		}
	}
}

var (
	quoted = regexp.MustCompile("`[^`\n]+`")
	symbol = regexp.MustCompile(`\b([a-z][a-z0-9]*)\.([A-Z]\w*(?:\.[A-Z]\w*)?)`)
	source = regexp.MustCompile(`^[\w./-]+/[\w.-]+\.(?:go|txt|sh)$`)
)

// TestNames: the files, types and functions that the document names are there, so that a
// stranger who follows it arrives.
func TestNames(t *testing.T) {
	text := read(t, architecture)
	byName := make(map[string][]*pkg)
	for _, p := range tree(t) {
		byName[p.name] = append(byName[p.name], p)
	}
	_, diagram, _ := strings.Cut(text, "```mermaid\n")
	diagram, _, found := strings.Cut(diagram, "```")
	if !found {
		t.Fatalf("%s has no diagram", architecture)
	}
	named := append(quoted.FindAllString(text, -1), diagram)
	n := 0
	for _, m := range symbol.FindAllStringSubmatch(strings.Join(named, "\n"), -1) {
		has := func(p *pkg) bool { return p.symbols[m[2]] }
		switch packages := byName[m[1]]; {
		case packages == nil:
			t.Errorf("%s names %s, and there is no package %s", architecture, m[0], m[1])
		case !slices.ContainsFunc(packages, has):
			t.Errorf("%s names %s, and there is no such thing", architecture, m[0])
		default:
			n++
		}
	}
	if n < 20 {
		t.Errorf("only %d names were found", n)
	}
	for _, name := range quoted.FindAllString(text, -1) {
		if name = strings.Trim(name, "`"); source.MatchString(name) {
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Errorf("%s names %s: %v", architecture, name, err)
			}
		}
	}
}
