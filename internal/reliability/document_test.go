package reliability

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestRowsAreReplacedAndSorted(t *testing.T) {
	d := parse("# Head\n\nwords\n")
	d.set(Fault{"Hangs", "b | c", "nothing", "2 of 3"}, "TestB/sub")
	d.set(Fault{"Hangs", "a", "nothing", "nothing"}, "TestA")
	d.set(Fault{"Disks", "full", "a pause", "all"}, "TestFull")
	d.set(Fault{"Hangs", "a", "nothing", "one"}, "TestA")
	want := "# Head\n\nwords\n\n## Disks\n" + columns + "| full | a pause | all | `TestFull` |\n" +
		"\n## Hangs\n" + columns + "| a | nothing | one | `TestA` |\n| b \\| c | nothing | 2 of 3 | `TestB` |\n"
	if got := d.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	again := parse(want)
	if got := again.String(); got != want {
		t.Errorf("read and written again:\n%s", got)
	}
	if got := again.row(Fault{Area: "Hangs", Fault: "b | c"}); !strings.Contains(got, "2 of 3") {
		t.Errorf("row %q", got)
	}
	if got := again.row(Fault{Area: "Disks", Fault: "a"}); got != "" {
		t.Errorf("a row of another area: %q", got)
	}
}

// TestRowsHaveTheirTests wants each row's test to exist: a row whose test is gone
// proves nothing.
func TestRowsHaveTheirTests(t *testing.T) {
	path, err := document()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t, filepath.Dir(filepath.Dir(path)))
	for _, a := range parse(string(doc)).areas {
		for _, row := range a.rows {
			name := regexp.MustCompile("`(Test[^`]*)` \\|$").FindStringSubmatch(row)
			if name == nil || !tests[name[1]] {
				t.Errorf("%s: no test of this name in the tree: %s", a.name, row)
			}
		}
	}
}

func testNames(t *testing.T, root string) map[string]bool {
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	names := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(src), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
