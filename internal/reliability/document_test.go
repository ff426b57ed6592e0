package reliability

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestRowsAreReplacedAndSorted(t *testing.T) {
	d := parse("# Head\n\nwords\n")
	d.set(Fault{Area: "Hangs", Fault: "b | c", Pod: "nothing", Lost: "2 of 3"}, "TestB/sub")
	d.set(Fault{Area: "Hangs", Fault: "a", Pod: "nothing", Lost: "nothing"}, "TestA")
	d.set(Fault{Area: "Disks", Fault: "full", Pod: "a pause", Lost: "all"}, "TestFull")
	d.set(Fault{Area: "Hangs", Fault: "a", Pod: "nothing", Lost: "one"}, "TestA")
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

// TestLoads: rows with numbers have their own columns, and a run with other numbers
// contradicts them only where they say that something never happens.
func TestLoads(t *testing.T) {
	d := parse("# Head\n")
	seen := Load{Pods: 5, Calls: 1000, Recorded: 90, Delivered: 80, Duplicated: 3, Lost: map[string]int{"b": 7, "a": 1, "c": 0}, LongestPause: 1234 * time.Millisecond}
	f := Fault{Area: "Under load", Fault: "killed", Load: &seen}
	d.set(f, "TestKills")
	want := "# Head\n\n## Under load\n" + loadColumns + "| killed | 0 of 5 | 0 of 1000 | 90 | 80 | 3 | a: 1, b: 7 | 1.2 s | `TestKills` |\n"
	if got := d.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	again := parse(want)
	if got := again.String(); got != want {
		t.Errorf("read and written again:\n%s", got)
	}
	row := again.row(f)
	for said, other := range map[string]Load{
		"":                                     {Pods: 7, Calls: 10, Duplicated: 9, Lost: map[string]int{"b": 70, "c": 0}},
		"1 pods lost, and the document says 0": {Pods: 7, PodsLost: 1},
		"2 calls failed, and the document says 0":               {Calls: 7, CallsFailed: 2},
		`4 spans lost as "c", and the document does not say so`: {Lost: map[string]int{"c": 4}},
	} {
		if got := other.contradicts(row); got != said {
			t.Errorf("%+v: %q, want %q", other, got, said)
		}
	}
}

// TestRowsHaveTheirTests: each row's test exists; a row without its test proves
// nothing.
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
