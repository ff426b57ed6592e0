package main

import (
	"testing"

	"github.com/shimtrace/shimtrace/internal/deptest"
)

// TestImports: the binary that containerd waits for grows only by decision.
func TestImports(t *testing.T) { deptest.Listed(t, "imports.txt") }
