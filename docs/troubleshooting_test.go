package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFindings: what docs/troubleshooting.md has doctor say, it can say.
func TestFindings(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "internal/doctor/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var says strings.Builder
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		says.Write(text)
	}
	n := 0
	for line := range strings.Lines(read(t, "docs/troubleshooting.md")) {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 {
			continue
		}
		for _, m := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(cells[1], -1) {
			n++
			if !strings.Contains(says.String(), m[1]) {
				t.Errorf("doctor does not say %q", m[1])
			}
		}
	}
	if n < 25 {
		t.Errorf("only %d were found", n)
	}
}
