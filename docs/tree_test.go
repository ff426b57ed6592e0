// Package docs_test holds the documents against the tree: that they name what there is,
// and all of it.
package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = ".."
	module = "github.com/shimtrace/shimtrace/"
)

// pkg is a package of the tree, of any of its modules.
type pkg struct {
	name    string
	imports map[string]bool // packages of ours, by directory; tests' are not among them
	symbols map[string]bool // "Type", "Func", "Type.Method"
}

// tree returns all packages by their directory.
func tree(t *testing.T) map[string]*pkg {
	t.Helper()
	all := make(map[string]*pkg)
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != root && (d.Name() == "testdata" || d.Name() == "target" || strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(file) != ".go" {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		p := all[filepath.ToSlash(rel)]
		if p == nil {
			p = &pkg{imports: make(map[string]bool), symbols: make(map[string]bool)}
			all[filepath.ToSlash(rel)] = p
		}
		if strings.HasSuffix(file, "_test.go") {
			return nil
		}
		return p.add(file)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages in %s", len(all), root)
	}
	return all
}

// add takes in a file of the package.
func (p *pkg) add(file string) error {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	p.name = f.Name.Name
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		if dir, ours := strings.CutPrefix(imported, module); ours {
			p.imports[dir] = true
		}
	}
	for _, decl := range f.Decls {
		p.declare(decl)
	}
	return nil
}

func (p *pkg) declare(decl ast.Decl) {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		name := decl.Name.Name
		if decl.Recv != nil {
			name = receiver(decl.Recv.List[0].Type) + "." + name
		}
		p.symbols[name] = true
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				p.symbols[spec.Name.Name] = true
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					p.symbols[name.Name] = true
				}
			}
		}
	}
}

// receiver returns the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// room is the first element of a package's directory.
func room(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

// roomOf returns the room of a package: the part of internal that has a row of its own
// in the table of imports, else its first directory.
func roomOf(dir string, table map[string][]string) string {
	if parts := strings.SplitN(dir, "/", 3); len(parts) > 1 && table[parts[0]+"/"+parts[1]] != nil {
		return parts[0] + "/" + parts[1]
	}
	return room(dir)
}

// read returns a file below root.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents returns the names of what people read, below root.
func documents(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			all = append(all, path.Join(path.Dir(pattern), filepath.Base(file)))
		}
	}
	if len(all) < 10 {
		t.Fatalf("only %q", all)
	}
	return all
}
