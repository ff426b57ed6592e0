package deptest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorder is a test whose failures are recorded.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

const self = "github.com/shimtrace/shimtrace/internal/deptest"

func TestListed(t *testing.T) {
	for name, test := range map[string]struct {
		list string
		want []string // beginnings of errors
	}{
		"equal":    {"# why\n" + self + "\n", nil},
		"new":      {"# nothing\n", []string{self + " is new"}},
		"gone":     {self + "\nexample.com/old\n", []string{"example.com/old is no longer"}},
		"no match": {"example.com/old", []string{self + " is new", "example.com/old is no longer"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "imports.txt")
			if err := os.WriteFile(file, []byte(test.list), 0o600); err != nil {
				t.Fatal(err)
			}
			r := &recorder{TB: t}
			Listed(r, file)
			check(t, r.errors, test.want)
		})
	}
}

func TestWithout(t *testing.T) {
	r := &recorder{TB: t}
	Without(r, map[string]string{"net/http": "it is large", "os/exec": "nothing is started", "internal": "not for us", "o": "no path"})
	for _, e := range r.errors {
		if !strings.Contains(e, " os/exec: nothing is started") && !strings.Contains(e, " internal/") {
			t.Errorf("%q", e)
		}
	}
	if len(r.errors) < 2 {
		t.Errorf("%q, want os/exec and what is below internal", r.errors)
	}
}

func check(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%q, want %q", got, want)
	}
	for i := range got {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}
