// Package explain says what a sandbox's start was waiting for: the critical path, the
// self time of each layer, the time that nobody is named for, and the known causes.
// Package critical finds the path, package causes has the catalogue of causes; this
// package puts both together, for people (text.go) and for scripts (json.go).
//
// It works on the tree of one story and reads nothing else.
package explain
