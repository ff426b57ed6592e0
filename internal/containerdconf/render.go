package containerdconf

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// bare matches keys that need no quotes in TOML.
var bare = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// heading returns the line with which the handler's section begins in a file of that
// version.
func (r Runtime) heading(version int) string {
	text, _, _ := strings.Cut(r.Render(version), "\n")
	return text
}

// writeTable writes a table and its subtables, each under its full name, so that it can
// follow any text in a file with its parent tables.
func writeTable(b *strings.Builder, path []string, table map[string]any) {
	indent := "  "
	var names []string
	for _, p := range path {
		if !bare.MatchString(p) {
			p = fmt.Sprintf("%q", p)
		}
		names = append(names, p)
	}
	fmt.Fprintf(b, "[%s]\n", strings.Join(names, "."))
	var tables []string
	for _, key := range slices.SortedFunc(maps.Keys(table), byUse) {
		if _, ok := table[key].(map[string]any); ok {
			tables = append(tables, key)
			continue
		}
		// A single key is marshalled to one line.
		line, err := toml.Marshal(map[string]any{key: table[key]})
		if err != nil {
			continue // impossible: the value was read from TOML
		}
		b.WriteString(indent + strings.TrimSuffix(string(line), "\n") + "\n")
	}
	for _, key := range tables {
		b.WriteString("\n")
		writeTable(b, append(slices.Clone(path), key), table[key].(map[string]any))
	}
}

// byUse puts the keys that select the shim first.
func byUse(a, b string) int {
	first := func(key string) int { return slices.Index([]string{"runtime_path", "runtime_type"}, key) }
	return cmp.Or(cmp.Compare(first(b), first(a)), cmp.Compare(a, b))
}
