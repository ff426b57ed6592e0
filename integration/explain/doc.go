// Package explain seeds causes of slow starts in real containers, and tests that
// shimtrace explain names them, and names none on healthy ones. docs/explain.md has what
// was named, and how much of each start had a named owner.
package explain
