package explain_test

import (
	"testing"

	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/waterfall/treetest"
)

// of explains the only story in a message.
func of(t testing.TB, data []byte) *explain.Explanation {
	t.Helper()
	story, tree := treetest.Only(t, data)
	return explain.Explain(story, tree, nil)
}
