// Package treetest reads the spans of a story for tests, as the tool reads a journal.
package treetest

import (
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Only returns the only story in a message, and its tree with details.
func Only(t testing.TB, data []byte) (*waterfall.Story, *waterfall.Tree) {
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
	return stories[0], b.Tree()
}
