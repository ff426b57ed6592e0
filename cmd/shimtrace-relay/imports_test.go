package main

import (
	"testing"

	"github.com/shimtrace/shimtrace/internal/deptest"
)

// TestImports: the binary that every pod runs grows only by decision.
func TestImports(t *testing.T) { deptest.Listed(t, "imports.txt") }
