package config

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const documentPath = "../../docs/configuration.md"

// TestReference: the tables of docs/configuration.md are what the code says: the keys of
// Config with their types, defaults and comments and when another value is in effect, and the
// variables.
// SHIMTRACE_WRITE_CONFIGURATION=1 writes them.
func TestReference(t *testing.T) {
	text, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	d := reference{t: t, text: string(text), meanings: fieldComments(t)}
	d.sections("", reflect.ValueOf(Default()))
	d.table("## Environment variables", environmentTable(t))
	if d.text == string(text) {
		return
	}
	if os.Getenv("SHIMTRACE_WRITE_CONFIGURATION") == "" {
		t.Fatalf("%s differs from the code, first in line %d: run SHIMTRACE_WRITE_CONFIGURATION=1 go test ./internal/config -run Reference", documentPath, firstDifference(d.text, string(text)))
	}
	if err := os.WriteFile(documentPath, []byte(d.text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func firstDifference(a, b string) int {
	lines := strings.Split(b, "\n")
	for i, line := range strings.Split(a, "\n") {
		if i >= len(lines) || line != lines[i] {
			return i + 1
		}
	}
	return len(lines)
}

// reference is the document, whose tables are replaced.
type reference struct {
	t        *testing.T
	text     string
	meanings map[string]string // by "Type.Field"
}

// sections replaces the tables of all sections in value, whose key is prefix.
func (d *reference) sections(prefix string, value reflect.Value) {
	for i := range value.NumField() {
		name, field := value.Type().Field(i).Tag.Get("toml"), value.Field(i)
		if name == "-" || value.Type().Field(i).Anonymous || field.Kind() != reflect.Struct {
			continue
		}
		d.table("## `["+prefix+name+"]`", d.keys(prefix+name, field))
		d.sections(prefix+name+".", field)
	}
}

// keys returns the table of a section.
func (d *reference) keys(section string, value reflect.Value) string {
	d.t.Helper()
	return "| key | type, default | environment | in effect | meaning |\n|---|---|---|---|---|\n" + d.rows(section, value)
}

func (d *reference) rows(section string, value reflect.Value) string {
	d.t.Helper()
	b := new(strings.Builder)
	for i := range value.NumField() {
		f := value.Type().Field(i)
		key := f.Tag.Get("toml")
		if f.Anonymous {
			b.WriteString(d.rows(section, value.Field(i)))
		}
		if key == "-" || value.Field(i).Kind() == reflect.Struct {
			continue
		}
		meaning := d.meanings[value.Type().Name()+"."+f.Name]
		if meaning == "" {
			d.t.Errorf("%s.%s has no comment that says what it means", section, key)
		}
		shown := f.Tag.Get("type")
		if shown == "" {
			shown = typeName(d.t, f.Type)
		}
		fmt.Fprintf(b, "| `%s` | %s, %s | %s | %s | %s |\n", key, shown, shownDefault(d.t, value.Field(i)), variablesOf(section+"."+key), effectOf()[section+"."+key], meaning)
	}
	return strings.ReplaceAll(b.String(), "|  |", "| |")
}

// table replaces the first table below a heading.
func (d *reference) table(heading, table string) {
	d.t.Helper()
	at := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(heading) + `.*\n`).FindStringIndex(d.text)
	if at == nil {
		d.t.Errorf("%s has no section %s", documentPath, heading)
		return
	}
	body, rest := d.text[at[1]:], ""
	if end := strings.Index(body, "\n## "); end >= 0 {
		body, rest = body[:end], body[end:]
	}
	old := regexp.MustCompile(`(?m)(^\|.*\n)+`).FindStringIndex(body)
	if old == nil {
		d.t.Errorf("the section %s of %s has no table", heading, documentPath)
		return
	}
	d.text = d.text[:at[1]] + body[:old[0]] + table + body[old[1]:] + rest
}

func variablesOf(key string) string {
	var names []string
	for _, v := range variables {
		if v.key == key {
			for _, name := range v.names {
				names = append(names, "`"+name+"`")
			}
		}
	}
	return strings.Join(names, ", ")
}

func environmentTable(t *testing.T) string {
	t.Helper()
	comments := variableComments(t)
	if len(comments) != len(variables) {
		t.Fatalf("%d of %d variables have a comment", len(comments), len(variables))
	}
	b := new(strings.Builder)
	b.WriteString("| variable | key | values |\n|---|---|---|\n")
	for i, v := range variables {
		key := ""
		if section, name, ok := strings.Cut(v.key, "."); ok {
			key = "`" + name + "` of `[" + section + "]`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", v.names[len(v.names)-1], key, comments[i])
	}
	return strings.ReplaceAll(b.String(), "|  |", "| |")
}

func typeName(t *testing.T, typ reflect.Type) string {
	t.Helper()
	switch typ {
	case reflect.TypeFor[Duration]():
		return "duration"
	case reflect.TypeFor[Bytes]():
		return "size"
	case reflect.TypeFor[map[string]string]():
		return "table of strings"
	case reflect.TypeFor[map[string]Target]():
		return "tables"
	case reflect.TypeFor[[]uint32]():
		return "list of numbers"
	case reflect.TypeFor[[]string]():
		return "list"
	}
	switch typ.Kind() {
	case reflect.String, reflect.Bool:
		return typ.Kind().String()
	case reflect.Int, reflect.Uint32, reflect.Float64:
		return "number"
	}
	t.Fatalf("the reference has no name for the type %s", typ)
	return ""
}

// shownDefault returns a default as the document shows it.
func shownDefault(t *testing.T, v reflect.Value) string {
	t.Helper()
	switch value := v.Interface().(type) {
	case Duration:
		return fmt.Sprintf("`%q`", time.Duration(value).String())
	case Bytes:
		if value%(1<<20) != 0 {
			return fmt.Sprintf("`\"%dKiB\"`", value>>10)
		}
		return fmt.Sprintf("`\"%dMiB\"`", value>>20)
	case map[string]string, map[string]Target:
		return "empty"
	case string:
		if value == "" {
			return "none"
		}
	case []uint32:
		return "none"
	case []string:
		if value == nil {
			return "as below"
		}
		if len(value) == 0 {
			return "none"
		}
		return "`[\"" + strings.Join(value, "\", \"") + "\"]`"
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		t.Fatal(err)
	}
	return "`" + string(text) + "`"
}

// sources returns the files of this package but for its tests.
func sources(t *testing.T) (*token.FileSet, []*ast.File) {
	t.Helper()
	set := token.NewFileSet()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, e.Name(), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return set, files
}

// fieldComments returns the comments of all fields, each in one line.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	_, files := sources(t)
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			typ, ok := spec.Type.(*ast.StructType)
			if !ok {
				return false
			}
			for _, field := range typ.Fields.List {
				for _, name := range field.Names {
					all[spec.Name.Name+"."+name.Name] = oneLine(field.Doc)
				}
			}
			return false
		})
	}
	return all
}

// variableComments returns the comments of the elements of variables, in their order.
func variableComments(t *testing.T) (all []string) {
	t.Helper()
	set, files := sources(t)
	for _, f := range files {
		above := make(map[int]*ast.CommentGroup) // by the line below
		for _, c := range f.Comments {
			above[set.Position(c.End()).Line+1] = c
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !slices.ContainsFunc(spec.Names, func(n *ast.Ident) bool { return n.Name == "variables" }) {
				return true
			}
			for _, element := range spec.Values[0].(*ast.CompositeLit).Elts {
				if c := above[set.Position(element.Pos()).Line]; c != nil {
					all = append(all, oneLine(c))
				}
			}
			return false
		})
	}
	return all
}

func oneLine(c *ast.CommentGroup) string {
	return strings.Join(strings.Fields(c.Text()), " ")
}
