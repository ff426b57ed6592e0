package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
)

// fallback replaces an invalid value: a switch is off, nothing is sent if the target is
// wrong, and the harmless list is kept. Any other key counts as not set.
var fallback = map[string]instead{
	"trace.mode":          {"trace.mode", "off", "nothing is traced until it is right"},
	"agent.receive":       {"agent.receive", "off", offUntilRight},
	"agent.inject":        {"agent.inject", "off", offUntilRight},
	"process.record":      {"process.record", "off", offUntilRight},
	"jaeger.receive":      {"jaeger.receive", "off", offUntilRight},
	"agent.keep":          {"agent.keep", nil, "the default list holds until it is right"},
	"export.preset":       nothingIsSent,
	"export.endpoint":     nothingIsSent,
	"export.protocol":     nothingIsSent,
	"export.headers":      nothingIsSent,
	"export.header_files": nothingIsSent,
	"export.ca":           nothingIsSent,
	"export.cert":         nothingIsSent,
	"export.key":          nothingIsSent,
	"export.insecure":     nothingIsSent,
}

// instead is what applies in the place of an invalid value.
type instead struct {
	key    string
	value  any // nil: the default, whatever a lower layer says
	effect string
}

const offUntilRight = "it is off until it is right"

var nothingIsSent = instead{"export.endpoint", "", "nothing is sent until it is right"}

// layer is one layer of the file while its mistakes are removed: the common sections,
// or a runtime's.
type layer struct {
	doc    *document
	own    *node
	prefix []string // of its keys in the file
}

// drop removes an invalid key from the layer and reports why.
func (l *layer) drop(path []string, at int, err error) {
	effect := "it counts as not set"
	target := len(path) > 2 && path[0] == "export" && path[1] == "target"
	f, ok := fallback[join(path)]
	if target {
		effect = "nothing is sent there until it is right"
	}
	if !ok && len(path) > 2 {
		f, ok = fallback[join(path[:2])]
	}
	if ok {
		effect = f.effect
	}
	if err != nil {
		l.doc.mistake(at, "%s: %s; %s", join(append(slices.Clone(l.prefix), path...)), err, effect)
	}
	l.remove(path)
	if ok {
		l.set(f.key, f.value)
	}
	if target {
		// What another layer says of this target does not count either.
		find(l.own, path[:2]).table[path[2]] = &node{broken: true}
	}
}

// remove removes a key from the layer.
func (l *layer) remove(path []string) {
	if t := find(l.own, path[:len(path)-1]); t != nil {
		delete(t.table, path[len(path)-1])
	}
}

// set sets a key of the layer that no file has set; nil: the default.
func (l *layer) set(key string, value any) {
	path := parseKey(key)
	t := l.own.table[path[0]]
	if t == nil || t.table == nil {
		t = newTable(0)
		l.own.table[path[0]] = t
	}
	t.table[path[1]] = &node{value: value, broken: value == nil}
}

// find returns the node at a path, nil if there is none.
func find(t *node, path []string) *node {
	for _, name := range path {
		if t == nil {
			return nil
		}
		t = t.table[name]
	}
	return t
}

// check drops unknown keys and values of another type.
func (l *layer) check() {
	l.checkTable(l.own, nil, reflect.ValueOf(new(Config)).Elem())
}

func (l *layer) checkTable(t *node, path []string, target reflect.Value) {
	for _, name := range slices.Sorted(maps.Keys(t.table)) {
		n, at := t.table[name], append(slices.Clone(path), name)
		field, known := fieldOf(target, name)
		switch {
		case !known:
			if !n.broken {
				l.doc.mistake(n.key, "unknown key %q; see docs/configuration.md", join(append(slices.Clone(l.prefix), at...)))
			}
			delete(t.table, name)
		case n.broken:
			l.drop(at, n.key, nil)
		case field.Kind() == reflect.Struct && n.table != nil:
			l.checkTable(n, at, field)
		case field.Type() == targetsType && n.table != nil:
			l.checkTargets(n, at)
		case field.Kind() == reflect.Map && n.table != nil:
			for _, key := range slices.Sorted(maps.Keys(n.table)) {
				v := n.table[key]
				if _, ok := v.value.(string); !ok {
					l.drop(append(slices.Clone(at), key), v.at, unlessBroken(v, notA(v, "a string")))
				}
			}
		default:
			if err := assign(field, n); err != nil {
				l.drop(at, n.at, err)
			}
		}
	}
}

var targetsType = reflect.TypeFor[map[string]Target]()

// checkTargets checks the tables of the targets with a name.
func (l *layer) checkTargets(t *node, path []string) {
	for _, name := range slices.Sorted(maps.Keys(t.table)) {
		n, at := t.table[name], append(slices.Clone(path), name)
		if n.table == nil {
			l.drop(at, n.key, unlessBroken(n, notA(n, "a section")))
			continue
		}
		l.checkTable(n, at, reflect.ValueOf(new(Target)).Elem())
	}
}

func unlessBroken(n *node, err error) error {
	if n.broken {
		return nil
	}
	return err
}

// fieldOf returns the field of a struct for a key in the file.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if field, known := fieldOf(v.Field(i), key); known {
				return field, true
			}
		} else if tag := f.Tag.Get("toml"); tag == key && tag != "-" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// merge returns base with over merged over it; neither is changed.
func merge(base, over *node) *node {
	out := newTable(over.at)
	maps.Copy(out.table, base.table)
	for name, n := range over.table {
		if below := out.table[name]; below != nil && below.table != nil && n.table != nil {
			n = merge(below, n)
		}
		out.table[name] = n
	}
	return out
}

// decode returns the defaults with the values of a checked table.
func decode(t *node) Config {
	cfg := Default()
	cfg.Export.usePreset(find(t, []string{"export"}))
	fill(reflect.ValueOf(&cfg).Elem(), t)
	return cfg
}

func fill(target reflect.Value, t *node) {
	for name, n := range t.table {
		field, known := fieldOf(target, name)
		switch {
		case !known || n.broken:
		case field.Kind() == reflect.Struct:
			fill(field, n)
		case field.Type() == targetsType:
			targets := make(map[string]Target)
			for key, v := range n.table {
				if !v.broken {
					targets[key] = decodeTarget(key, v)
				}
			}
			if len(targets) > 0 {
				field.Set(reflect.ValueOf(targets))
			}
		case field.Kind() == reflect.Map:
			m := make(map[string]string)
			for key, v := range n.table {
				m[key], _ = v.value.(string)
			}
			if len(m) > 0 {
				field.Set(reflect.ValueOf(m))
			}
		default:
			_ = assign(field, n)
		}
	}
}

// assign sets a field of a Config to a value from the file.
func assign(field reflect.Value, n *node) error {
	switch target := field.Addr().Interface().(type) {
	case *string:
		s, ok := n.value.(string)
		if !ok {
			return notA(n, "a string")
		}
		*target = s
	case *bool:
		b, ok := n.value.(bool)
		if !ok {
			return notA(n, "true or false")
		}
		*target = b
	case *float64:
		switch v := n.value.(type) {
		case float64:
			*target = v
		case int64:
			*target = float64(v)
		default:
			return notA(n, "a number")
		}
	case *int:
		v, ok := n.value.(int64)
		if !ok {
			return notA(n, "a whole number")
		}
		*target = int(v)
	case *uint32:
		v, ok := n.value.(int64)
		if !ok || v < 0 || v > math.MaxUint32 {
			return notA(n, "a whole number from 0 to 4294967295")
		}
		*target = uint32(v)
	case *Duration:
		s, ok := n.value.(string)
		if !ok {
			return fmt.Errorf("%w: write it with its unit, in quotes, such as \"500ms\" or \"2s\"", notA(n, "a duration"))
		}
		return target.UnmarshalText([]byte(s))
	case *Bytes:
		if v, ok := n.value.(int64); ok && v >= 0 {
			*target = Bytes(v)
			return nil
		}
		s, ok := n.value.(string)
		if !ok {
			return fmt.Errorf("%w: write a whole number, or one with its unit, such as \"64MiB\"", notA(n, "a size"))
		}
		return target.UnmarshalText([]byte(s))
	default:
		return assignList(field, n)
	}
	return nil
}

func assignList(field reflect.Value, n *node) error {
	if field.Kind() != reflect.Slice {
		return notA(n, "a section")
	}
	list, ok := n.value.([]*node)
	if !ok {
		return notA(n, "a list")
	}
	out := reflect.MakeSlice(field.Type(), len(list), len(list))
	var errs []error
	for i, element := range list {
		errs = append(errs, assign(out.Index(i), element))
	}
	if err := errors.Join(errs...); err != nil {
		return errs[slices.IndexFunc(errs, func(err error) bool { return err != nil })]
	}
	field.Set(out)
	return nil
}

// notA returns the error for a value of the wrong type. It shows only numbers and
// booleans: any other misplaced value may be a secret.
func notA(n *node, what string) error {
	switch v := n.value.(type) {
	case int64, float64, bool:
		return fmt.Errorf("%v is not %s", v, what)
	case string:
		return fmt.Errorf("this string is not %s", what)
	case []*node:
		return fmt.Errorf("this list is not %s", what)
	}
	if n.table != nil {
		return fmt.Errorf("this table is not %s", what)
	}
	return fmt.Errorf("this is not %s", what)
}
