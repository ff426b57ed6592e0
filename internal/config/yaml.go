package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The part of YAML that declarative configuration files are written in: mappings and lists by
// indentation, scalars in one line, plain or quoted, lists and mappings in brackets. Anchors,
// tags, texts of several lines and several documents are mistakes: no file is understood in
// another way than YAML 1.2 has it.

// yamlNode is a mapping, a list or a scalar.
type yamlNode struct {
	line, column int
	keys         []string // of a mapping, in the order of the file
	table        map[string]*yamlNode
	list         []*yamlNode
	text         string // of a scalar
	quoted       bool   // the text is no number, boolean or null
	kind         yamlKind
}

type yamlKind int

const (
	yamlScalar yamlKind = iota
	yamlTable
	yamlList
)

// maxDepth bounds how deep mappings and lists are nested.
const maxDepth = 64

// yamlLine is a line with something in it.
type yamlLine struct {
	number, indent int
	text           string // without indentation and comment
}

// readYAML parses a text. The error is a [Mistake].
func readYAML(text []byte) (root *yamlNode, err error) {
	defer func() {
		if v := recover(); v != nil {
			m, ok := v.(Mistake)
			if !ok {
				panic(v)
			}
			root, err = nil, m
		}
	}()
	p := yamlParser{lines: yamlLines(text)}
	if len(p.lines) == 0 {
		return &yamlNode{line: 1, column: 1}, nil
	}
	root = p.block(p.lines[0].indent, 0)
	if p.at < len(p.lines) {
		p.fail(p.lines[p.at], 0, "this line is not indented as those above")
	}
	return root, nil
}

type yamlParser struct {
	lines []yamlLine
	at    int
}

// fail ends the parsing, at an offset of a line.
func (p *yamlParser) fail(l yamlLine, offset int, format string, args ...any) {
	panic(Mistake{Line: l.number, Column: l.indent + offset + 1, Text: fmt.Sprintf(format, args...)})
}

// yamlLines returns the lines that have something in them.
func yamlLines(text []byte) (all []yamlLine) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	began := false
	for i, b := range bytes.Split(text, []byte("\n")) {
		l := yamlLine{number: i + 1, text: strings.TrimSuffix(string(b), "\r")}
		if !utf8.ValidString(l.text) {
			panic(Mistake{Line: l.number, Column: 1, Text: "this is not UTF-8"})
		}
		if at := strings.IndexFunc(l.text, func(r rune) bool {
			return r < ' ' || r == 0x7f || r == '\u0085' || r == '\u2028' || r == '\u2029' || r == '\ufeff'
		}); at >= 0 {
			panic(Mistake{Line: l.number, Column: at + 1, Text: "there is a tab or another control character: write spaces"})
		}
		whole := l.text
		l.text = strings.TrimLeft(l.text, " ")
		l.indent = len(whole) - len(l.text)
		l.text = strings.TrimRight(l.text, " ")
		if over(l.text, 0) {
			continue
		}
		switch {
		case !began && l.indent == 0 && l.text == "---":
			began = true
			continue
		case l.indent == 0 && (strings.HasPrefix(l.text, "---") || strings.HasPrefix(l.text, "...") || l.text[0] == '%'):
			panic(Mistake{Line: l.number, Column: 1, Text: "only one document, without directives, is read"})
		}
		began = true
		all = append(all, l)
	}
	return all
}

// over reports whether the rest of a line, from an offset, is empty or a comment.
func over(text string, at int) bool {
	return at >= len(text) || text[at] == '#' && (at == 0 || text[at-1] == ' ')
}

// block parses the lines with the given indentation, and those below them.
func (p *yamlParser) block(indent, depth int) *yamlNode {
	l := p.lines[p.at]
	if depth > maxDepth {
		p.fail(l, 0, "this is nested too deep")
	}
	n := &yamlNode{line: l.number, column: indent + 1}
	switch {
	case isItem(l.text):
		n.kind = yamlList
		for p.at < len(p.lines) && p.lines[p.at].indent == indent && isItem(p.lines[p.at].text) {
			n.list = append(n.list, p.item(indent, depth))
		}
	case keyEnd(l.text) >= 0:
		n.kind, n.table = yamlTable, make(map[string]*yamlNode)
		for p.at < len(p.lines) && p.lines[p.at].indent == indent && !isItem(p.lines[p.at].text) {
			p.entry(n, indent, depth)
		}
	default:
		p.at++
		n = p.inline(l, 0)
	}
	if p.at < len(p.lines) && p.lines[p.at].indent > indent {
		p.fail(p.lines[p.at], 0, "this line is indented, and nothing above it can have it below; texts of several lines are not read")
	}
	return n
}

func isItem(text string) bool { return text == "-" || strings.HasPrefix(text, "- ") }

// item parses what follows a dash, in its line and below.
func (p *yamlParser) item(indent, depth int) *yamlNode {
	l := &p.lines[p.at]
	rest := strings.TrimLeft(l.text[1:], " ")
	if over(rest, 0) {
		p.at++
		return p.below(*l, indent+1, depth)
	}
	// As if the dash were a space.
	l.indent += len(l.text) - len(rest)
	l.text = rest
	return p.block(l.indent, depth+1)
}

// below parses the lines that are indented by at least least. If there are none, the
// result is null.
func (p *yamlParser) below(l yamlLine, least, depth int) *yamlNode {
	if p.at < len(p.lines) && p.lines[p.at].indent >= least {
		return p.block(p.lines[p.at].indent, depth+1)
	}
	return &yamlNode{line: l.number, column: l.indent + 1}
}

// entry parses a key of a mapping, and its value.
func (p *yamlParser) entry(n *yamlNode, indent, depth int) {
	l := p.lines[p.at]
	end := keyEnd(l.text)
	if end < 0 {
		p.fail(l, 0, "expected a key and a colon")
	}
	key, rest := l.text[:end], l.text[end+1:]
	if n.table[key] != nil {
		p.fail(l, 0, "%.64q is there already", key)
	}
	p.at++
	n.keys = append(n.keys, key)
	offset := len(l.text) - len(strings.TrimLeft(rest, " "))
	if !over(l.text, offset) {
		n.table[key] = p.inline(l, offset)
		return
	}
	least := indent + 1
	if p.at < len(p.lines) && p.lines[p.at].indent == indent && isItem(p.lines[p.at].text) {
		least = indent // a list may be as far left as its key
	}
	n.table[key] = p.below(l, least, depth)
}

// keyEnd returns where the colon after a key is; -1: there is none.
func keyEnd(text string) int {
	for i := range len(text) {
		if text[i] == ':' && (i+1 == len(text) || text[i+1] == ' ') {
			if !isKey(text[:i]) {
				return -1
			}
			return i
		}
	}
	return -1
}

// isKey reports whether a text is a key as the schema has them: a word.
func isKey(text string) bool {
	return text != "" && strings.IndexByte(letters, text[0]) >= 0 && strings.Trim(text, letters+"_./-") == ""
}

// inline parses the rest of a line, from an offset.
func (p *yamlParser) inline(l yamlLine, offset int) *yamlNode {
	f := yamlFlow{p, l, offset}
	n := f.value("", 0)
	if f.space(); !over(l.text, f.at) {
		p.fail(l, f.at, "expected the end of the line")
	}
	return n
}

// plain fails for a text that is a scalar only in quotes.
func (p *yamlParser) plain(l yamlLine, offset int, text string) {
	switch {
	case strings.IndexByte("&*!|>%@`,[]{}#\"'", text[0]) >= 0,
		strings.IndexByte("?:-", text[0]) >= 0 && (len(text) == 1 || text[1] == ' '):
		p.fail(l, offset, "anchors, tags, complex keys and texts of several lines are not read; put a text that begins so into quotes")
	case strings.Contains(text, ": ") || strings.HasSuffix(text, ":"):
		p.fail(l, offset, "a text with a colon and a space belongs into quotes")
	}
}

// yamlFlow parses within a line.
type yamlFlow struct {
	*yamlParser
	l  yamlLine
	at int
}

func (f *yamlFlow) space() {
	for f.at < len(f.l.text) && (f.l.text[f.at] == ' ') {
		f.at++
	}
}

// next reports whether a character comes, and passes it.
func (f *yamlFlow) next(c byte) bool {
	if f.space(); f.at < len(f.l.text) && f.l.text[f.at] == c {
		f.at++
		return true
	}
	return false
}

// value parses a value that ends with one of the characters, or with the line.
func (f *yamlFlow) value(ends string, depth int) *yamlNode {
	f.space()
	n := &yamlNode{line: f.l.number, column: f.l.indent + f.at + 1}
	if depth > maxDepth {
		f.fail(f.l, f.at, "this is nested too deep")
	}
	switch {
	case f.next('['):
		n.kind = yamlList
		for !f.next(']') {
			n.list = append(n.list, f.value(",]", depth+1))
			f.comma(']')
		}
	case f.next('{'):
		n.kind, n.table = yamlTable, make(map[string]*yamlNode)
		for !f.next('}') {
			k := f.value(":,}", depth+1)
			if k.kind != yamlScalar || k.quoted || !isKey(k.text) || !f.next(':') || !strings.HasPrefix(f.l.text[f.at:], " ") || n.table[k.text] != nil {
				f.fail(f.l, f.at, "expected a key, once, a colon and a space")
			}
			n.keys = append(n.keys, k.text)
			n.table[k.text] = f.value(",}", depth+1)
			f.comma('}')
		}
	case f.at < len(f.l.text) && (f.l.text[f.at] == '"' || f.l.text[f.at] == '\''):
		n.text, n.quoted = f.quoted(), true
	default:
		n.text = f.scalar(ends)
	}
	return n
}

// comma passes the comma between two values, unless the end comes.
func (f *yamlFlow) comma(end byte) {
	if f.space(); f.at < len(f.l.text) && f.l.text[f.at] == end || f.next(',') {
		return
	}
	f.fail(f.l, f.at, "expected a comma or %c in this line", end)
}

// scalar parses a plain scalar.
func (f *yamlFlow) scalar(ends string) string {
	from := f.at
	for !over(f.l.text, f.at) && (ends == "" || strings.IndexByte(ends+"[]{}", f.l.text[f.at]) < 0 || f.substitution(from)) {
		f.at++
	}
	text := strings.TrimRight(f.l.text[from:f.at], " ")
	if text == "" {
		if ends != "" && ends != ",}" { // the value of a key may be left out
			f.fail(f.l, from, "expected a value")
		}
		return ""
	}
	f.plain(f.l, from, text)
	return text
}

// substitution reports whether the scalar that begins at from is within a reference to a
// variable at present.
func (f *yamlFlow) substitution(from int) bool {
	text := f.l.text[from : f.at+1]
	open := strings.LastIndex(text, "${")
	return open >= 0 && strings.IndexByte(text[open:len(text)-1], '}') < 0 || strings.HasSuffix(text, "${")
}

var errQuote = errors.New("the quotation has no end in this line")

// quoted parses a scalar in quotes.
func (f *yamlFlow) quoted() string {
	from, q := f.at, f.l.text[f.at]
	var b strings.Builder
	for f.at++; f.at < len(f.l.text); f.at++ {
		c := f.l.text[f.at]
		switch {
		case c == q && q == '\'' && strings.HasPrefix(f.l.text[f.at+1:], "'"):
			f.at++
			b.WriteByte(c)
		case c == q:
			f.at++
			return b.String()
		case c == '\\' && q == '"':
			f.at++
			if f.at == len(f.l.text) {
				f.fail(f.l, from, "%v", errQuote)
			}
			at := strings.IndexByte(`"\/nrt0`, f.l.text[f.at])
			if at < 0 {
				f.fail(f.l, f.at, "of escapes only \\\" \\\\ \\/ \\n \\r \\t \\0 are read")
			}
			b.WriteByte("\"\\/\n\r\t\x00"[at])
		default:
			b.WriteByte(c)
		}
	}
	f.fail(f.l, from, "%v", errQuote)
	return ""
}
