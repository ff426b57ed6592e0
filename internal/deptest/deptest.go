// Package deptest restricts, in a package's test, what the package may depend on.
//
// Every pod has its own shim process, so what is linked into it costs memory,
// initialization time and risk once per pod. Its dependencies are therefore a list that
// somebody must change ([Listed]). A library for others promises what it does not
// depend on ([Without]).
//
// Only tests import it.
package deptest

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// Listed compares the dependencies of the package in the working directory, including
// itself but not the standard library, with the lines of a file. Lines that begin with
// # are comments: they say for each module why it is needed.
func Listed(t testing.TB, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	added, gone := compare(dependencies(t, "{{if not .Standard}}{{.ImportPath}}{{end}}"), lines(string(text)))
	for _, pkg := range added {
		t.Errorf("%s is new here, and every pod pays for it. Weigh it first: the size of the binary, the memory of a relay (make bench has both), what it does when it is initialized. If it is worth that, put it into %s, under its module with the reason", pkg, file)
	}
	for _, pkg := range gone {
		t.Errorf("%s is no longer a dependency: take it out of %s", pkg, file)
	}
}

// Without fails for each dependency, including the standard library's, that is one of
// the unwanted packages or below one. The value says why it is unwanted.
func Without(t testing.TB, unwanted map[string]string) {
	t.Helper()
	for _, dep := range dependencies(t, "{{.ImportPath}}") {
		if why, bad := lookUp(unwanted, dep); bad {
			t.Errorf("a dependency on %s: %s", dep, why)
		}
	}
}

// lookUp finds the package, or one above it.
func lookUp(unwanted map[string]string, pkg string) (why string, bad bool) {
	for ; pkg != "."; pkg = path.Dir(pkg) {
		if why, bad = unwanted[pkg]; bad {
			return why, true
		}
	}
	return "", false
}

// dependencies lists the package in the working directory and its dependencies, in go
// list's format.
func dependencies(t testing.TB, format string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-f", format, ".")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(fmt.Errorf("go list -deps: %w\n%s", err, stderr.String()))
	}
	deps := strings.Fields(string(out))
	if len(deps) == 0 {
		t.Fatalf("go list -deps gave %q", deps)
	}
	return deps
}

// lines returns the lines of a text that are neither empty nor comments.
func lines(text string) (all []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			all = append(all, line)
		}
	}
	return all
}

// compare returns the packages missing from the list, and those only in the list.
func compare(have, list []string) (added, gone []string) {
	for _, pkg := range have {
		if !slices.Contains(list, pkg) {
			added = append(added, pkg)
		}
	}
	for _, pkg := range list {
		if !slices.Contains(have, pkg) {
			gone = append(gone, pkg)
		}
	}
	return added, gone
}
