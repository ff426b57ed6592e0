package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// same returns how a tree differs from that of a whole parser of YAML; empty: it does not.
func same(own *yamlNode, n *yaml.Node, at string) string {
	switch {
	case n.Kind == yaml.ScalarNode && own.kind == yamlScalar:
		quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
		if own.text != n.Value || own.quoted != quoted {
			return fmt.Sprintf("%s: %q (quoted: %v), want %q (%v)", at, own.text, own.quoted, n.Value, quoted)
		}
	case n.Kind == yaml.SequenceNode && own.kind == yamlList && len(n.Content) == len(own.list):
		for i, v := range n.Content {
			if d := same(own.list[i], v, fmt.Sprintf("%s[%d]", at, i)); d != "" {
				return d
			}
		}
	case n.Kind == yaml.MappingNode && own.kind == yamlTable && len(n.Content) == 2*len(own.keys):
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if own.table[key] == nil {
				return fmt.Sprintf("%s: no %q", at, key)
			}
			if d := same(own.table[key], n.Content[i+1], at+"."+key); d != "" {
				return d
			}
		}
	default:
		return fmt.Sprintf("%s: it is %+v, want %+v", at, own, n)
	}
	return ""
}

// compare reads a text by both parsers, and reports whether ours takes it.
func compare(t *testing.T, text string) bool {
	t.Helper()
	own, err := readYAML([]byte(text))
	if err != nil {
		var m Mistake
		if !errors.As(err, &m) || m.Line < 1 || m.Column < 1 {
			t.Errorf("%q: %v is no mistake with a place", text, err)
		}
		return false
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Errorf("%q is read, and is no YAML: %v", text, err)
		return true
	}
	if len(doc.Content) == 0 {
		if own.kind != yamlScalar || own.text != "" {
			t.Errorf("%q is %+v, and nothing is in it", text, own)
		}
		return true
	}
	if d := same(own, doc.Content[0], ""); d != "" {
		t.Errorf("%q is read in another way: %s", text, d)
	}
	return true
}

var yamlReads = []string{
	"", "# nothing\n", "---\na: b\n", "a: b", "a:\n  b:\n    c: 1 # one\n  d: 'x # y'\n", "a:\n- 1\n- 2\nb: ~\n", "a:\n  - b: 1\n    c: 2\n  - d:\n",
	"- - 1\n  - 2\n-\n  x: y\n- \"a\\n\\\"b\"\n", "a: [1, 'two', {b: c, d: [e]}, ]\nb: {}\nc: []\n", "a: http://x:4318/v1#y\n", "a: it''s\n", "a: 'it''s'\n", "a: ${X:-b}\n",
	"\xef\xbb\xbfa: b\r\nc: d\r\n", "a: -1\nb: :x\nc: ?x\n",
}

var yamlRefuses = []string{
	"a: &x b", "a: *x", "a: !!str b", "a: |\n  b\n", "a: >\n  b\n", "a: b\n  c\n", "a: 'b\n", "a: \"\\u00e9\"\n", "a: b: c\n", "a: 1\na: 2\n", "\ta: b\n", "a:\tb\n", "'a': b\n", "a b: c\n", "a: b\n---\nc: d\n",
	"%YAML 1.2\n---\na: b\n", "a: [1\n, 2]\n", "a: b\n c: d\n", "a:\n    b: 1\n  c: 2\n", "? a\n: b\n", "a: @b\n", "- a\nb: c\n", "a: \x00\n", "a: \xff\n", "{a: b}: c\n",
	strings.Repeat("- ", 100) + "a\n", "a: " + strings.Repeat("[", 100) + "\n",
}

// TestYAML: what is read is read as YAML has it, and what is not has a place in the file.
func TestYAML(t *testing.T) {
	for _, text := range yamlReads {
		if !compare(t, text) {
			_, err := readYAML([]byte(text))
			t.Errorf("%q is not read: %v", text, err)
		}
	}
	for _, text := range yamlRefuses {
		if compare(t, text) {
			t.Errorf("%q is read", text)
		}
	}
}

func FuzzYAML(f *testing.F) {
	for _, text := range append(yamlReads, yamlRefuses...) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { compare(t, text) })
}
