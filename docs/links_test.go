package docs_test

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

var (
	target  = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	scheme  = regexp.MustCompile(`^[a-z]+:`)
	linking = regexp.MustCompile(`\[([^\]]*)\]\([^()\s]*\)`)
)

// withoutCode returns a document's lines but for its blocks of code.
func withoutCode(text string) []string {
	var all []string
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
		} else if !code {
			all = append(all, strings.TrimRight(line, "\n"))
		}
	}
	return all
}

// links returns the relative targets of a document's links.
func links(text string) []string {
	var all []string
	for _, m := range target.FindAllStringSubmatch(strings.Join(withoutCode(text), "\n"), -1) {
		if !scheme.MatchString(m[1]) {
			all = append(all, m[1])
		}
	}
	return all
}

// anchors returns the anchors of a document's headings, as GitHub makes them: small
// letters, digits, hyphens and underscores, blanks as hyphens; a repeated one is numbered.
func anchors(text string) []string {
	seen := make(map[string]int)
	var all []string
	for _, line := range withoutCode(text) {
		title := strings.TrimLeft(line, "#")
		if title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		title = linking.ReplaceAllString(strings.TrimSpace(title), "$1")
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, title)
		if n := seen[anchor]; n > 0 {
			all = append(all, fmt.Sprintf("%s-%d", anchor, n))
		} else {
			all = append(all, anchor)
		}
		seen[anchor]++
	}
	return all
}

// TestLinks: every relative link leads to a file, and its anchor to a heading.
func TestLinks(t *testing.T) {
	n := 0
	for _, name := range documents(t) {
		for _, link := range links(read(t, name)) {
			n++
			file, anchor, _ := strings.Cut(link, "#")
			to := name
			if file != "" {
				to = path.Join(path.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(to))); err != nil {
				t.Errorf("%s links to %s: %v", name, link, err)
			} else if anchor != "" && !slices.Contains(anchors(read(t, to)), anchor) {
				t.Errorf("%s links to %s: there is no such heading; there are %q", name, link, anchors(read(t, to)))
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d links were found", n)
	}
}

// TestReadme: the README leads to every document.
func TestReadme(t *testing.T) {
	linked := links(read(t, "README.md"))
	for _, name := range documents(t) {
		if name != "README.md" && !slices.Contains(linked, name) {
			t.Errorf("README.md does not link to %s", name)
		}
	}
}

func TestAnchors(t *testing.T) {
	got := anchors("# The `[agent]`: what, and why\n```sh\n# no heading\n```\n## A_b [link](x.md#y) 2\n## Twice\n### Twice\n#none\n")
	want := []string{"the-agent-what-and-why", "a_b-link-2", "twice", "twice-1"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := links("[a](b.md#c), [d](https://e) and [f](#g)\n```\n[h](i)\n```\n"); !slices.Equal(got, []string{"b.md#c", "#g"}) {
		t.Errorf("%q", got)
	}
}
