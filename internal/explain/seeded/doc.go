// Package seeded writes the tables of docs/explain.md that tests prove: which seeded
// causes are named, and how much of a start has a named owner.
//
// Named and Covered check an explanation, and that the document says so. With
// SHIMTRACE_WRITE_EXPLAIN=1 in the environment they write their rows instead.
package seeded
