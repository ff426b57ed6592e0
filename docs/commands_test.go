package docs_test

import (
	"regexp"
	"strings"
	"testing"
)

var (
	makes  = regexp.MustCompile("(?m)(?:^|`)make ([a-z-]+(?: [a-z-]+)*)")
	recipe = regexp.MustCompile(`(?m)^([a-z-]+):`)
)

// TestMakeTargets: what the documents have people make is in the Makefile.
func TestMakeTargets(t *testing.T) {
	targets := make(map[string]bool)
	for _, m := range recipe.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets[m[1]] = true
	}
	n := 0
	for _, name := range documents(t) {
		for _, m := range makes.FindAllStringSubmatch(read(t, name), -1) {
			for _, target := range strings.Fields(m[1]) {
				n++
				if !targets[target] {
					t.Errorf("%s says make %s, which the Makefile does not know", name, target)
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d were found", n)
	}
}
