// Package html writes a story as one page: a waterfall to zoom and search, with each
// span's details, the critical path and what was found to be slow, in words.
//
// The page is one file. It loads nothing and uses no network: its policy
// (Content-Security-Policy) allows only the style and the script in it, by their
// hashes. Recorded texts are data, which the script puts into text nodes.
package html

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Page is what a page shows.
type Page struct {
	Story *waterfall.Story
	// Tree is the story's, built with details.
	Tree *waterfall.Tree
	// Head are lines above the picture, Findings what was found to be slow.
	Head     []string
	Findings []Finding
	// Start is the time of the start, which is shown first; zero without one.
	Start waterfall.Interval
	// Critical are the parts of the critical path, as in waterfall.Options.
	Critical map[*waterfall.Node][]waterfall.Interval
}

// Finding is a cause: a sentence, and lines with its evidence and what to do.
type Finding struct {
	Title string
	Text  []string
}

//go:embed assets
var assets embed.FS

// scripts are the parts of the page's script, in the order in which they run.
var scripts = []string{"dom.js", "model.js", "view.js", "rows.js", "axis.js", "details.js", "head.js", "input.js", "main.js"}

var page = template.Must(template.ParseFS(assets, "assets/page.html"))

// Write writes the page.
func Write(w io.Writer, p Page) error {
	data, err := json.Marshal(newData(p)) // escapes <, > and &, so that no text ends the script
	if err != nil {
		return fmt.Errorf("page: %w", err)
	}
	style, script := read("page.css"), ""
	for _, name := range scripts {
		script += read(name)
	}
	policy := fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", hash(style), hash(script))
	return page.Execute(w, struct {
		Title, Policy string
		Style         template.CSS
		Script, Data  template.JS
	}{title(p.Story), policy, template.CSS(style), template.JS(script), template.JS(data)})
}

func read(name string) string {
	text, err := assets.ReadFile("assets/" + name)
	if err != nil {
		panic(err) // not embedded: the tests of this package fail
	}
	return string(text)
}

// hash returns a text's hash as a policy names it.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// title returns what the story is called.
func title(s *waterfall.Story) string {
	name := s.Name()
	if name == "" {
		name = waterfall.ShortID(s.Sandbox)
	}
	if name == "" {
		name = s.Trace.String()
	}
	return waterfall.Clean(strings.TrimSpace(name + " · shimtrace"))
}
