package toolset

import "os"

// TB is the part of testing.TB that Needed needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Needed returns the cache directory for a test that needs a tool. Where the tool is not
// built, the test is skipped, or fails if CI is set in the environment.
func (t Tool) Needed(tb TB) (root string) {
	tb.Helper()
	root, err := Root()
	switch {
	case err != nil:
		tb.Fatalf("%v", err)
	case t.Built(root):
	case os.Getenv("CI") != "":
		tb.Fatalf("no %s in %s (make tools)", t, root)
	default:
		tb.Skipf("no %s in %s (make tools)", t, root)
	}
	return root
}
