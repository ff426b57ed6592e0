package main

import (
	"testing"

	"github.com/shimtrace/shimtrace/internal/deptest"
)

// TestImports: what every pod has a process of grows by decision only.
func TestImports(t *testing.T) { deptest.Listed(t, "imports.txt") }
