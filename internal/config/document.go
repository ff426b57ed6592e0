package config

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// maxWork bounds the bytes read again after mistakes: after an unreadable line, parsing
// starts again at each line.
const maxWork = 16 * maxFile

// node is the table or value at one key of a file.
type node struct {
	at    int // offset of the value, or of the name in a table's header
	key   int // offset of the key
	table map[string]*node
	value any // string, int64, float64, bool, []*node; nil: a type that no key takes

	// broken: the value cannot be read, and the mistake is reported.
	broken bool
	// header: the table has a header of its own.
	header bool
}

func newTable(at int) *node { return &node{at: at, key: at, table: make(map[string]*node)} }

// document is a file's text as a tree. Unreadable parts are mistakes; the tree has the
// rest.
type document struct {
	text     []byte
	root     *node
	mistakes []Mistake

	section []string // the header above the next keys
	lost    bool     // that header cannot be read
}

func (d *document) mistake(at int, format string, args ...any) {
	before := d.text[:min(at, len(d.text))]
	line := bytes.Count(before, []byte{'\n'}) + 1
	column := len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
	d.mistakes = append(d.mistakes, Mistake{Line: line, Column: column, Text: fmt.Sprintf(format, args...)})
}

func (d *document) line(at int) int { return bytes.Count(d.text[:at], []byte{'\n'}) + 1 }

// read parses a file's text, one expression (a header, or a key with its value) after
// the other. After an unreadable expression it goes on with the next line.
func read(text []byte) *document {
	// Editors of other systems begin a file with a byte order mark.
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	d := &document{text: text, root: newTable(0)}
	var p unstable.Parser
	work, failed := 0, false
	for at := 0; at < len(text); {
		end := lineEnd(text, at)
		line := bytes.TrimSuffix(bytes.TrimSuffix(text[at:end], []byte("\r\n")), []byte("\n"))
		line = bytes.Trim(line, " \t")
		if len(line) == 0 || line[0] == '#' {
			at = end
			continue
		}
		p.Reset(text[at:])
		if p.NextExpression() {
			last := d.add(p.Expression(), at)
			at, failed = lineEnd(text, at+last), false
			continue
		}
		off, reason := failure(&p)
		// Lines of a multi-line value belong to the mistake already reported.
		if !failed || begins(line) {
			where := at + off
			if where >= end && where >= len(text)-1 {
				where = at + bytes.IndexByte(text[at:end], line[0]) // it has no end: report its beginning
			}
			d.mistake(where, "%s", reason)
		}
		d.salvage(text[at:end], at)
		failed = true
		if work += off + len(line); work > maxWork {
			d.mistake(end, "the rest is not read: there is too much wrong above")
			break
		}
		at = end
	}
	return d
}

// lineEnd returns the offset just after the line that at is in.
func lineEnd(text []byte, at int) int {
	if n := bytes.IndexByte(text[at:], '\n'); n >= 0 {
		return at + n + 1
	}
	return len(text)
}

// failure returns where, and why, the parser could not read an expression.
func failure(p *unstable.Parser) (offset int, reason string) {
	var perr *unstable.ParserError
	if err := p.Error(); !errors.As(err, &perr) {
		return 0, "expected a section or a key"
	}
	return int(p.Range(perr.Highlight).Offset), perr.Message
}

// begins reports whether a line looks like a header or a key with a value.
func begins(line []byte) bool {
	return line[0] == '[' || bytes.IndexByte(line, '=') > 0
}

// add adds an expression that begins at an offset to the tree. It returns an offset,
// relative to that one, on the expression's last line.
func (d *document) add(n *unstable.Node, at int) int {
	var path []string
	first, last := -1, 0
	for it := n.Key(); it.Next(); {
		k := it.Node()
		path = append(path, string(k.Data))
		if first < 0 {
			first = at + int(k.Raw.Offset)
		}
		last = int(k.Raw.Offset + k.Raw.Length)
	}
	switch n.Kind {
	case unstable.ArrayTable:
		d.mistake(at, "[[%s]] is a list of sections, and there are none: write [%s]", join(path), join(path))
		d.enter(path, first)
	case unstable.Table:
		if t := d.enter(path, first); t != nil && t.header {
			d.mistake(first, "the section [%s] is there already, in line %d", join(path), d.line(t.at))
		} else if t != nil {
			t.header, t.at = true, first
		}
	case unstable.KeyValue:
		last = int(n.Raw.Offset + n.Raw.Length)
		if !d.lost {
			d.put(d.root, append(d.section[:len(d.section):len(d.section)], path...), d.value(n.Value(), at, first))
		}
	}
	return last
}

// enter makes a section the one that the next keys belong to.
func (d *document) enter(path []string, at int) *node {
	d.section, d.lost = path, false
	return d.open(d.root, path, at)
}

// open returns the table at a path, creating it if need be. It replaces a value in that
// place.
func (d *document) open(t *node, path []string, at int) *node {
	for i, name := range path {
		next := t.table[name]
		if next != nil && next.table == nil {
			if !next.broken {
				d.mistake(next.key, "%s is a section: it cannot have a value", join(path[:i+1]))
			}
			next = nil
		}
		if next == nil {
			next = newTable(at)
			t.table[name] = next
		}
		t = next
	}
	return t
}

// put adds a value to the tree. A value already there stays.
func (d *document) put(root *node, path []string, v *node) {
	last := len(path) - 1
	t := d.open(root, path[:last], v.key)
	old := t.table[path[last]]
	switch {
	case old == nil || old.broken:
		t.table[path[last]] = v
	case v.broken:
	case old.table != nil && v.table != nil:
		for name, sub := range v.table {
			d.put(old, []string{name}, sub)
		}
	default:
		d.mistake(v.key, "%s is there already, in line %d", join(path), d.line(old.key))
	}
}

// value converts the parser's node, in an expression that begins at an offset, to a
// node of the tree.
func (d *document) value(n *unstable.Node, at, key int) *node {
	v := &node{at: at + int(n.Raw.Offset), key: key}
	switch n.Kind {
	case unstable.String:
		v.value = string(n.Data)
	case unstable.Bool:
		v.value = n.Data[0] == 't'
	case unstable.Integer:
		if i, err := strconv.ParseInt(string(n.Data), 0, 64); err == nil {
			v.value = i
		}
	case unstable.Float:
		if f, err := strconv.ParseFloat(strings.ReplaceAll(string(n.Data), "_", ""), 64); err == nil {
			v.value = f
		}
	case unstable.Array:
		v.at = key
		list := []*node{}
		for it := n.Children(); it.Next(); {
			list = append(list, d.value(it.Node(), at, key))
		}
		if len(list) > 0 {
			v.at = list[0].at
		}
		v.value = list
	case unstable.InlineTable:
		v.table = make(map[string]*node)
		for it := n.Children(); it.Next(); {
			var path []string
			first := -1
			for k := it.Node().Key(); k.Next(); {
				path = append(path, string(k.Node().Data))
				if first < 0 {
					first = at + int(k.Node().Raw.Offset)
				}
			}
			d.put(v, path, d.value(it.Node().Value(), at, first))
		}
	}
	return v
}

// salvage finds the section or key that an unreadable line, which begins at an offset,
// is about.
func (d *document) salvage(line []byte, at int) {
	text := strings.TrimSpace(string(line))
	if name, ok := strings.CutPrefix(text, "["); ok {
		name = strings.TrimLeft(name, "[ \t")
		if end := strings.IndexAny(name, "]#"); end >= 0 {
			name = name[:end]
		}
		if path := parseKey(name); path != nil {
			d.enter(path, at)
		} else {
			d.section, d.lost = nil, true
		}
		return
	}
	name, _, ok := strings.Cut(text, "=")
	if path := parseKey(name); ok && path != nil && !d.lost {
		d.put(d.root, append(d.section[:len(d.section):len(d.section)], path...), &node{at: at, key: at, broken: true})
	}
}

// parseKey returns the parts of a key as written in a file, nil if text is no key.
func parseKey(text string) (path []string) {
	var p unstable.Parser
	p.Reset([]byte(text + " = 0"))
	if !p.NextExpression() || p.Expression().Kind != unstable.KeyValue {
		return nil
	}
	for it := p.Expression().Key(); it.Next(); {
		path = append(path, string(it.Node().Data))
	}
	return path
}

// join returns a key as written in a file.
func join(path []string) string {
	parts := make([]string, len(path))
	for i, p := range path {
		parts[i] = p
		if strings.Trim(p, bareKey) != "" || p == "" {
			parts[i] = strconv.Quote(p)
		}
	}
	return strings.Join(parts, ".")
}

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	bareKey = letters + "_-"
)
