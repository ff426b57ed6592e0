package names_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/shimtrace/shimtrace/internal/names"
)

// texts returns the strings in a Go file, and those of them that are constants.
func texts(t *testing.T, path string) (all, constants []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec, *ast.Field:
			return false // tags, too
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
				all = append(all, text)
			}
		}
		return true
	})
	for _, d := range file.Decls {
		if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.CONST {
			for _, s := range d.Specs {
				for _, v := range s.(*ast.ValueSpec).Values {
					if lit, ok := v.(*ast.BasicLit); ok {
						text, _ := strconv.Unquote(lit.Value)
						constants = append(constants, text)
					}
				}
			}
		}
	}
	return all, constants
}

var (
	ours = regexp.MustCompile(`^shimtrace\.[a-z0-9_.]+$`)
	// code matches text between backticks in a document.
	code = regexp.MustCompile("`([^`\n]+)`")
)

// TestDocument: docs/spans.md has every name, and no other name of shimtrace.
func TestDocument(t *testing.T) {
	_, known := texts(t, "names.go")
	if len(known) < 40 {
		t.Fatalf("only %d names", len(known))
	}
	text, err := os.ReadFile("../../docs/spans.md")
	if err != nil {
		t.Fatal(err)
	}
	said := make(map[string]bool)
	for _, m := range code.FindAllStringSubmatch(string(text), -1) {
		name, _, _ := strings.Cut(m[1], "=")
		said[name] = true
		if ours.MatchString(name) && !slices.Contains(known, name) {
			t.Errorf("docs/spans.md has %s, which is not in names.go", name)
		}
	}
	for _, name := range known {
		if !said[name] {
			t.Errorf("docs/spans.md does not say what %s is", name)
		}
	}
	// The names in the tables of spans are those of shimtrace's spans, or of calls.
	_, spans, _ := strings.Cut(string(text), "\n## Spans\n")
	spans, _, _ = strings.Cut(spans, "\n\nA call span")
	for line := range strings.Lines(spans) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		for _, m := range code.FindAllStringSubmatch(cell, -1) {
			if !strings.Contains(m[1], "/") && !slices.Contains(known, m[1]) {
				t.Errorf("docs/spans.md has the span %q, which is not in names.go", m[1])
			}
		}
	}
}

// TestNowhereElse: the program takes these names only from here.
func TestNowhereElse(t *testing.T) {
	_, known := texts(t, "names.go")
	root := filepath.Join("..", "..")
	for _, dir := range []string{"cmd", "internal", "middleware"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
				strings.HasSuffix(filepath.Dir(path), "/names") || strings.Contains(path, "/captured/") {
				return err
			}
			all, _ := texts(t, path)
			for _, text := range all {
				if text == names.AgentScope || text == names.RuntimeScope {
					continue // also the programs' names
				}
				if slices.Contains(known, text) || ours.MatchString(text) && !strings.HasSuffix(text, ".json") {
					t.Errorf("%s: %q is to be taken from package names", path, text)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestConventions: OpenTelemetry's names equal those of its package semconv.
func TestConventions(t *testing.T) {
	for name, key := range map[string]string{
		names.Service: string(semconv.ServiceNameKey), names.Run: string(semconv.ServiceInstanceIDKey), names.Host: string(semconv.HostNameKey),
		names.Node: string(semconv.K8SNodeNameKey), names.Engine: string(semconv.ContainerRuntimeNameKey), names.Digest: string(semconv.OCIManifestDigestKey),
		names.Pod: string(semconv.K8SPodNameKey), names.PodNamespace: string(semconv.K8SNamespaceNameKey),
		names.Container: string(semconv.ContainerIDKey), names.ContainerName: string(semconv.ContainerNameKey),
		names.ErrorType: string(semconv.ErrorTypeKey), names.StatusCode: string(semconv.RPCResponseStatusCodeKey),
	} {
		if name != key {
			t.Errorf("%s, want %s", name, key)
		}
	}
}
