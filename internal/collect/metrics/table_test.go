package metrics

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestDocument: docs/operation.md lists the metrics, in this order.
func TestDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("| metric | kind, unit | attributes | says |\n|---|---|---|---|\n")
	seen := make(map[string]bool)
	for _, m := range table {
		if seen[m.name] || m.unit == "" || m.meaning == "" {
			t.Errorf("%+v", m)
		}
		seen[m.name] = true
		var attrs []string
		for _, a := range slices.Sorted(slices.Values(m.attributes)) {
			attrs = append(attrs, "`"+a+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s, `%s` | %s | %s |\n", m.name, m.kind, m.unit, strings.Join(attrs, ", "), m.meaning)
	}
	text, err := os.ReadFile("../../../docs/operation.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), b.String()) {
		t.Errorf("docs/operation.md is to have this table:\n%s", b.String())
	}
}
