package explain_test

import (
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// of explains the only story in a message.
func of(t testing.TB, data []byte) *explain.Explanation {
	t.Helper()
	x := waterfall.NewIndex()
	if err := x.Add(data, time.Now()); err != nil {
		t.Fatal(err)
	}
	stories := x.Stories()
	if len(stories) != 1 {
		t.Fatalf("%d stories", len(stories))
	}
	b := waterfall.NewBuilder(stories[0], waterfall.Limits{}, true)
	if err := b.Add(data); err != nil {
		t.Fatal(err)
	}
	return explain.Explain(stories[0], b.Tree(), nil)
}
